//! Nouns, state machines and planners of the engine: what is decided, never done.
//!
//! Pure: time, IDs and host facts are arguments.

pub mod capabilities;
pub mod create;
pub mod error;
pub mod filter;
pub mod health;
pub mod links;
pub mod logging;
pub mod mounts;
pub mod name;
pub mod phase;
pub mod ports;
pub mod remap;
pub mod restart;
pub mod security;
pub mod signal;
pub mod spec;
pub mod time;
pub mod units;
pub mod update;
pub mod volumes;

pub use error::{Kind, Refusal};
pub use phase::Phase;
