//! The one place that reads the clock and makes random numbers.

use std::time::{SystemTime, UNIX_EPOCH};

use model::time::UnixNanos;

pub fn now() -> UnixNanos {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        // getrandom(2) fails only before the kernel's pool is ready, which is long before any daemon.
        filled +=
            rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()).unwrap_or(0);
    }
    bytes
}

pub fn random_number() -> u64 {
    u64::from_le_bytes(random())
}

/// A new 64-digit hexadecimal ID. Never all digits in its short form, which would read as a number.
pub fn new_id() -> String {
    loop {
        let id: String = random::<32>().iter().map(|byte| format!("{byte:02x}")).collect();
        if id[..12].bytes().any(|byte| byte.is_ascii_alphabetic()) {
            return id;
        }
    }
}
