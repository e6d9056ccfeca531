//! Device nodes, and the rules by which devices may be used.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A device node to make in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinuxDevice {
    pub path: PathBuf,
    #[serde(rename = "type")]
    pub kind: LinuxDeviceKind,
    #[serde(default)]
    pub major: i64,
    #[serde(default)]
    pub minor: i64,
    /// Permission bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_mode: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinuxDeviceKind {
    /// Every kind; in rules only.
    #[default]
    #[serde(rename = "a")]
    All,
    #[serde(rename = "b")]
    Block,
    /// The specification's `u` (unbuffered) is the same.
    #[serde(rename = "c", alias = "u")]
    Char,
    #[serde(rename = "p")]
    Fifo,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinuxDeviceRule {
    pub allow: bool,
    #[serde(rename = "type")]
    pub kind: LinuxDeviceKind,
    /// Absent or negative: every major number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub major: Option<i64>,
    /// Absent or negative: every minor number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minor: Option<i64>,
    /// Of `r`, `w` and `m`; empty: all of them.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub access: String,
}
