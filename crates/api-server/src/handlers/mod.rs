//! Handlers, one module per noun: parse once, call a use case, answer.

pub mod archives;
pub mod attach;
pub mod build;
pub mod check;
pub mod containers;
pub mod debug;
pub mod execs;
pub mod files;
pub mod images;
pub mod networks;
pub mod registry;
pub mod stats;
pub mod system;
pub mod usage;
pub mod volumes;
