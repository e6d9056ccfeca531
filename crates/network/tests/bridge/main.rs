//! The bridge driver against a real kernel, in namespaces of its own.

mod cost;
mod lifecycle;
mod traffic;
mod world;
