//! Handlers, one module per noun: parse once, call a use case, answer.

pub mod attach;
pub mod build;
pub mod containers;
pub mod execs;
pub mod images;
pub mod networks;
pub mod system;
pub mod volumes;
