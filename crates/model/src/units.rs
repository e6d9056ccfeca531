//! Spans of time in words, as container lists show them.

use crate::time::NANOS;

/// `Less than a second`, `About a minute`, `3 hours`: the words of Docker's lists. `span` in nanoseconds.
pub fn human_duration(span: i64) -> String {
    let seconds = span / NANOS;
    let hours = (seconds as f64 / 3600.0 + 0.5) as i64;
    match seconds {
        i64::MIN..1 => "Less than a second".into(),
        1 => "1 second".into(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".into(),
        120..3600 => format!("{} minutes", seconds / 60),
        _ if hours == 1 => "About an hour".into(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_in_words() {
        for (seconds, words) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (180, "3 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (172_800, "2 days"),
            (1_814_400, "3 weeks"),
            (7_776_000, "3 months"),
            (94_608_000, "3 years"),
        ] {
            assert_eq!(human_duration(seconds * NANOS), words);
        }
    }
}
