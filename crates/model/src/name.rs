//! Container names: the grammar, and the generator.

use crate::Refusal;

/// Checks a name that a client gave and takes its optional leading slash off.
pub fn parse(name: &str) -> Result<&str, Refusal> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    let mut bytes = bare.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = bare.len() >= 2 && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if first && rest && bare.len() <= 255 {
        return Ok(bare);
    }
    Err(Refusal::invalid(format!(
        "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    )))
}

const ADJECTIVES: [&str; 64] = [
    "able", "agile", "amber", "apt", "bold", "brave", "bright", "brisk", "calm", "candid", "clever",
    "cosmic", "crisp", "curious", "daring", "deft", "eager", "early", "fair", "fearless", "fluent", "frank",
    "gentle", "glad", "golden", "handy", "happy", "hardy", "honest", "humble", "jolly", "keen", "kind",
    "lively", "loyal", "lucid", "mellow", "merry", "mighty", "modest", "nimble", "noble", "patient",
    "plucky", "polite", "proud", "quick", "quiet", "ready", "robust", "rusty", "serene", "sharp", "sincere",
    "smart", "steady", "stoic", "sturdy", "sunny", "swift", "tidy", "vivid", "warm", "wise",
];

const SURNAMES: [&str; 64] = [
    "abel",
    "ampere",
    "avogadro",
    "babbage",
    "bell",
    "bessemer",
    "bohr",
    "boole",
    "brunel",
    "carnot",
    "cauchy",
    "celsius",
    "chandra",
    "curie",
    "daimler",
    "darwin",
    "dijkstra",
    "dirac",
    "edison",
    "eiffel",
    "einstein",
    "euler",
    "faraday",
    "fermat",
    "fermi",
    "franklin",
    "galileo",
    "galois",
    "gauss",
    "goodall",
    "hamilton",
    "hertz",
    "hilbert",
    "hopper",
    "huygens",
    "johnson",
    "joule",
    "kelvin",
    "kepler",
    "lagrange",
    "lamarr",
    "laplace",
    "leibniz",
    "lovelace",
    "maxwell",
    "meitner",
    "mendel",
    "mirzakhani",
    "newton",
    "noether",
    "ohm",
    "pascal",
    "pasteur",
    "planck",
    "ramanujan",
    "ritchie",
    "shannon",
    "siemens",
    "tesla",
    "turing",
    "volta",
    "watt",
    "wiles",
    "yalow",
];

/// A name for a container that was given none. `random` picks it; from the second `attempt` on a number follows,
/// so that a taken name is soon got round.
pub fn generate(random: u64, attempt: u32) -> String {
    let adjective = ADJECTIVES[(random % 64) as usize];
    let surname = SURNAMES[(random / 64 % 64) as usize];
    match attempt {
        0 => format!("{adjective}_{surname}"),
        _ => format!("{adjective}_{surname}{}", random / 4096 % 10_u64.pow(attempt.min(9))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_allowed() {
        assert_eq!(parse("/web-1.a_b").unwrap(), "web-1.a_b");
        for bad in ["", "/", "a", "-a", "a b", "a/b", "é1", &"x".repeat(256)] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn generated_names_are_allowed() {
        for random in 0..5000 {
            parse(&generate(random * 7919, (random % 4) as u32)).unwrap();
        }
    }
}
