//! The host's local time.

/// Seconds that local time is ahead of UTC at a Unix time; 0 if that cannot be told.
pub fn utc_offset(second: i64) -> i32 {
    // SAFETY: an all-zero `tm` is valid (its pointer may be null), and `localtime_r` writes only to it.
    let (mut broken, result) = unsafe {
        let mut broken: libc::tm = std::mem::zeroed();
        let result = libc::localtime_r(&second, &mut broken);
        (broken, result)
    };
    if result.is_null() {
        broken.tm_gmtoff = 0;
    }
    i32::try_from(broken.tm_gmtoff).unwrap_or(0)
}
