//! Docker's default capabilities, and `--cap-add`/`--cap-drop`.

use oci::runtime::{Capability, CapabilitySet};

use crate::Refusal;

/// What a container has when nothing is asked for.
pub fn default_set() -> CapabilitySet {
    use Capability::*;
    CapabilitySet::from_iter([
        Chown,
        DacOverride,
        Fsetid,
        Fowner,
        Mknod,
        NetRaw,
        Setgid,
        Setuid,
        Setfcap,
        Setpcap,
        NetBindService,
        SysChroot,
        Kill,
        AuditWrite,
    ])
}

/// Names as the options take them: any case, with or without `CAP_`, or `ALL`.
struct Named {
    everything: bool,
    set: CapabilitySet,
}

fn read(names: &[String], option: &str) -> Result<Named, Refusal> {
    let mut named = Named { everything: false, set: CapabilitySet::EMPTY };
    for name in names {
        let upper = name.to_ascii_uppercase();
        let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
        if full == "CAP_ALL" {
            named.everything = true;
            continue;
        }
        let known = Capability::from_name(&full)
            .ok_or_else(|| Refusal::invalid(format!("invalid {option}: unknown capability: \"{full}\"")))?;
        named.set = named.set.with(known);
    }
    Ok(named)
}

/// The set to grant: Docker's default, or all for a privileged container, with `add` and `drop` applied.
/// A name that is both added and dropped is added, unless everything is added and it is dropped by name.
pub fn granted(privileged: bool, add: &[String], drop: &[String]) -> Result<CapabilitySet, Refusal> {
    let add = read(add, "CapAdd")?;
    let drop = read(drop, "CapDrop")?;
    let without_dropped = |set: CapabilitySet| set.iter().filter(|one| !drop.set.contains(*one)).collect();
    Ok(match (add.everything, drop.everything) {
        _ if privileged => CapabilitySet::ALL,
        (true, _) => without_dropped(CapabilitySet::ALL),
        (false, true) => add.set,
        (false, false) => add.set.union(without_dropped(default_set())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn adding_and_dropping() {
        assert_eq!(granted(false, &[], &[]).unwrap().iter().count(), 14);
        assert!(granted(false, &[], &names(&["ALL"])).unwrap().is_empty());
        let one = granted(false, &names(&["net_admin"]), &names(&["all"])).unwrap();
        assert_eq!(one, CapabilitySet::EMPTY.with(Capability::NetAdmin));
        let most = granted(false, &names(&["ALL"]), &names(&["CAP_SYS_ADMIN"])).unwrap();
        assert_eq!(most, CapabilitySet::ALL.without(Capability::SysAdmin));
        let error = granted(false, &names(&["FOO"]), &[]).unwrap_err();
        assert_eq!(error.message, "invalid CapAdd: unknown capability: \"CAP_FOO\"");
    }
}
