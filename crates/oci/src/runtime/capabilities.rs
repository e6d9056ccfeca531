//! Capabilities: their names, their numbers, and sets of them.

use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinuxCapabilities {
    #[serde(skip_serializing_if = "CapabilitySet::is_empty")]
    pub bounding: CapabilitySet,
    #[serde(skip_serializing_if = "CapabilitySet::is_empty")]
    pub effective: CapabilitySet,
    #[serde(skip_serializing_if = "CapabilitySet::is_empty")]
    pub inheritable: CapabilitySet,
    #[serde(skip_serializing_if = "CapabilitySet::is_empty")]
    pub permitted: CapabilitySet,
    #[serde(skip_serializing_if = "CapabilitySet::is_empty")]
    pub ambient: CapabilitySet,
}

/// Makes the enumeration and what is known of each member from one list.
macro_rules! capabilities {
    ($($variant:ident = $name:literal,)*) => {
        /// A capability of `capabilities(7)`; its number is the kernel's.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Capability {
            $($variant,)*
        }

        impl Capability {
            /// Every capability, in the kernel's order.
            pub const ALL: [Capability; [$($name),*].len()] = [$(Capability::$variant),*];

            const NAMES: [&'static str; Self::ALL.len()] = [$($name),*];
        }
    };
}

capabilities! {
    Chown = "CAP_CHOWN",
    DacOverride = "CAP_DAC_OVERRIDE",
    DacReadSearch = "CAP_DAC_READ_SEARCH",
    Fowner = "CAP_FOWNER",
    Fsetid = "CAP_FSETID",
    Kill = "CAP_KILL",
    Setgid = "CAP_SETGID",
    Setuid = "CAP_SETUID",
    Setpcap = "CAP_SETPCAP",
    LinuxImmutable = "CAP_LINUX_IMMUTABLE",
    NetBindService = "CAP_NET_BIND_SERVICE",
    NetBroadcast = "CAP_NET_BROADCAST",
    NetAdmin = "CAP_NET_ADMIN",
    NetRaw = "CAP_NET_RAW",
    IpcLock = "CAP_IPC_LOCK",
    IpcOwner = "CAP_IPC_OWNER",
    SysModule = "CAP_SYS_MODULE",
    SysRawio = "CAP_SYS_RAWIO",
    SysChroot = "CAP_SYS_CHROOT",
    SysPtrace = "CAP_SYS_PTRACE",
    SysPacct = "CAP_SYS_PACCT",
    SysAdmin = "CAP_SYS_ADMIN",
    SysBoot = "CAP_SYS_BOOT",
    SysNice = "CAP_SYS_NICE",
    SysResource = "CAP_SYS_RESOURCE",
    SysTime = "CAP_SYS_TIME",
    SysTtyConfig = "CAP_SYS_TTY_CONFIG",
    Mknod = "CAP_MKNOD",
    Lease = "CAP_LEASE",
    AuditWrite = "CAP_AUDIT_WRITE",
    AuditControl = "CAP_AUDIT_CONTROL",
    Setfcap = "CAP_SETFCAP",
    MacOverride = "CAP_MAC_OVERRIDE",
    MacAdmin = "CAP_MAC_ADMIN",
    Syslog = "CAP_SYSLOG",
    WakeAlarm = "CAP_WAKE_ALARM",
    BlockSuspend = "CAP_BLOCK_SUSPEND",
    AuditRead = "CAP_AUDIT_READ",
    Perfmon = "CAP_PERFMON",
    Bpf = "CAP_BPF",
    CheckpointRestore = "CAP_CHECKPOINT_RESTORE",
}

impl Capability {
    /// The name as the specification writes it, `CAP_CHOWN` and so on.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// Finds a capability by its name in the specification's spelling.
    pub fn from_name(name: &str) -> Option<Capability> {
        Self::NAMES.iter().position(|known| *known == name).map(|number| Self::ALL[number])
    }
}

/// A set of capabilities, a bit for each as in the kernel.
///
/// In JSON it is a list of names. Names that nobody knows are left out when reading: the specification asks for a
/// warning there and not for a failure, and a capability that no kernel has cannot be granted.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct CapabilitySet(u64);

impl CapabilitySet {
    pub const EMPTY: CapabilitySet = CapabilitySet(0);
    pub const ALL: CapabilitySet = CapabilitySet((1 << Capability::ALL.len()) - 1);

    /// From the kernel's mask; bits without a known capability are dropped.
    pub const fn from_bits(bits: u64) -> CapabilitySet {
        CapabilitySet(bits & Self::ALL.0)
    }

    pub const fn bits(self) -> u64 {
        self.0
    }

    pub const fn is_empty(&self) -> bool {
        self.0 == 0
    }

    pub const fn contains(self, capability: Capability) -> bool {
        self.0 & (1 << capability as u8) != 0
    }

    pub const fn with(self, capability: Capability) -> CapabilitySet {
        CapabilitySet(self.0 | 1 << capability as u8)
    }

    pub const fn without(self, capability: Capability) -> CapabilitySet {
        CapabilitySet(self.0 & !(1 << capability as u8))
    }

    pub const fn union(self, other: CapabilitySet) -> CapabilitySet {
        CapabilitySet(self.0 | other.0)
    }

    pub const fn intersection(self, other: CapabilitySet) -> CapabilitySet {
        CapabilitySet(self.0 & other.0)
    }

    /// The members in the kernel's order.
    pub fn iter(self) -> impl Iterator<Item = Capability> {
        Capability::ALL.into_iter().filter(move |capability| self.contains(*capability))
    }
}

impl FromIterator<Capability> for CapabilitySet {
    fn from_iter<I: IntoIterator<Item = Capability>>(members: I) -> Self {
        members.into_iter().fold(Self::EMPTY, Self::with)
    }
}

impl fmt::Debug for CapabilitySet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.iter()).finish()
    }
}

impl Serialize for CapabilitySet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.count_ones() as usize))?;
        for capability in self.iter() {
            list.serialize_element(capability.name())?;
        }
        list.end()
    }
}

impl<'de> Deserialize<'de> for CapabilitySet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = CapabilitySet;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of capability names")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Self::Value, A::Error> {
                let mut set = CapabilitySet::EMPTY;
                while let Some(name) = names.next_element::<std::borrow::Cow<'de, str>>()? {
                    if let Some(capability) = Capability::from_name(&name) {
                        set = set.with(capability);
                    }
                }
                Ok(set)
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(CapabilitySet::EMPTY)
            }
        }
        deserializer.deserialize_any(Names)
    }
}
