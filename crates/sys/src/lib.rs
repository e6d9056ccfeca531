//! System calls, typed. The only crate that may say `unsafe`.
//!
//! It wraps what `rustix` does not have, and holds [`Root`], the only way into a container's filesystem. It knows
//! nothing of containers. Everything here is synchronous; what needs a single-threaded process says so.

pub mod bpf;
pub mod btrfs;
pub mod channel;
mod content;
mod copy;
pub mod memory;
pub mod mount;
pub mod netlink;
pub mod network;
pub mod process;
pub mod quota;
mod root;
pub mod security;
pub mod signal;
pub mod terminal;
pub mod time;
mod tree;
mod writeback;

pub use channel::Channel;
pub use content::copy_content;
pub use copy::{Copied, copy_tree, is_empty_directory};
pub use root::{Graft, Place, Root};
pub use tree::{TreeUsage, remove_tree, tree_usage};
pub use writeback::{begin_writeback, completed_steps, write_tree_back};

use std::io;

/// The result of a raw system call.
fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
