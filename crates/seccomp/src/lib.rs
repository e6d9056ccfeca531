//! Seccomp profiles: Docker's profile format, the default policy, and the compiler to classic BPF.
//!
//! Pure: it makes bytes; loading them is `sandbox`'s work.
//!
//! From a profile to a filter:
//! 1. [`Profile::parse`] reads Docker's JSON, or [`default_profile`] gives the built-in policy.
//! 2. [`Profile::resolve`] keeps the rules that apply to a container's capabilities and to this host, and gives
//!    the `linux.seccomp` section of a runtime spec.
//! 3. [`compile`] turns that section into the instructions that the kernel runs at each system call.
//!
//! Step 3 is a pure function of the section, so its result can be kept and used for every container that has
//! the same one.

mod compile;
mod policy;
mod profile;
pub mod syscalls;

pub use compile::{Error, INSTRUCTIONS_MAX, compile, flags};
pub use policy::default_profile;
pub use profile::{Kernel, Profile, ProfileError};

/// The native architecture of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arch {
    X86_64,
    Aarch64,
}

impl Arch {
    /// The architecture that this program was built for.
    pub const HOST: Option<Arch> = if cfg!(target_arch = "x86_64") {
        Some(Arch::X86_64)
    } else if cfg!(target_arch = "aarch64") {
        Some(Arch::Aarch64)
    } else {
        None
    };

    /// The name in a profile's `arches` conditions.
    pub(crate) fn profile_name(self) -> &'static str {
        match self {
            Arch::X86_64 => "amd64",
            Arch::Aarch64 => "arm64",
        }
    }

    /// The name in the runtime spec's `architectures`.
    pub(crate) fn spec_name(self) -> &'static str {
        match self {
            Arch::X86_64 => "SCMP_ARCH_X86_64",
            Arch::Aarch64 => "SCMP_ARCH_AARCH64",
        }
    }
}
