//! Updates that are refused, and what an accepted one tells the kernel.

use oci::runtime::LinuxDeviceKind;
use proptest::prelude::*;

use super::*;
use crate::create::tests::facts;

fn record(resources: &str) -> Record {
    let own: serde_json::Value = serde_json::from_str(resources).unwrap();
    serde_json::from_value(
        serde_json::json!({"id": "abc", "name": "web", "created": 0, "image_id": "", "config": {},
        "host_config": own, "mounts": [], "network": "None"}),
    )
    .unwrap()
}

fn decide(own: &str, asked: &str) -> Result<Update, Refusal> {
    update(&record(own), api_types::from_json(asked.as_bytes()).unwrap(), &facts())
}

fn told(own: &str, asked: &str) -> serde_json::Value {
    let device = |_: &std::path::Path| Some((LinuxDeviceKind::Block, 8, 0));
    serde_json::to_value(decide(own, asked).unwrap().resources(&device).unwrap()).unwrap()
}

fn undone(own: &str, asked: &str) -> serde_json::Value {
    let device = |_: &std::path::Path| Some((LinuxDeviceKind::Block, 8, 0));
    serde_json::to_value(decide(own, asked).unwrap().undo(&record(own), &device).unwrap()).unwrap()
}

#[test]
fn conflicts_with_what_is_set() {
    let conflict = |own, asked| {
        let refusal = decide(own, asked).unwrap_err();
        assert_eq!(refusal.kind, Kind::Conflict);
        refusal.message
    };
    assert_eq!(
        conflict(r#"{"CpuPeriod":50000}"#, r#"{"NanoCpus":500000000}"#),
        "Cannot update container abc: Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set"
    );
    assert_eq!(
        conflict(r#"{"NanoCpus":500000000}"#, r#"{"CpuQuota":50000}"#),
        "Cannot update container abc: Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set"
    );
    let swap = "Cannot update container abc: Memory limit should be smaller than already set memoryswap limit, update \
                the memoryswap at the same time";
    assert_eq!(conflict("{}", r#"{"Memory":10000000}"#), swap);
    assert_eq!(conflict(r#"{"Memory":10000000,"MemorySwap":20000000}"#, r#"{"Memory":30000000}"#), swap);
    let refusal = decide("{}", r#"{"Memory":5}"#).unwrap_err();
    assert_eq!((refusal.kind, &*refusal.message), (Kind::Invalid, "Minimum memory limit allowed is 6MB"));
}

#[test]
fn only_what_changes_is_told_with_what_belongs_to_it() {
    let own = r#"{"Memory":10000000,"MemorySwap":20000000,"CpuPeriod":50000,"CpuShares":7,"PidsLimit":9}"#;
    assert_eq!(
        told(own, r#"{"Memory":15000000}"#),
        serde_json::json!({"memory": {"limit": 15000000, "swap": 20000000}})
    );
    assert_eq!(
        told(own, r#"{"CpuQuota":25000}"#),
        serde_json::json!({"cpu": {"quota": 25000, "period": 50000}})
    );
    assert_eq!(told(own, r#"{"PidsLimit":-1}"#), serde_json::json!({"pids": {"limit": -1}}));
    assert_eq!(told(own, r#"{"RestartPolicy":{"Name":"always"}}"#), serde_json::json!({}));
    let update = decide(own, r#"{"PidsLimit":0,"RestartPolicy":{"Name":"always"}}"#).unwrap();
    assert_eq!(update.record.host_config.resources.pids_limit, Some(0));
    assert_eq!(update.record.host_config.restart_policy.name, "always");
    assert_eq!(update.record.host_config.resources.memory, 10_000_000);
    assert!(!decide(own, "{}").unwrap().has_changes());
}

#[test]
fn devices_that_are_no_longer_named_are_not_limited() {
    let own = r#"{"BlkioDeviceReadBps":[{"Path":"/dev/a","Rate":5}]}"#;
    let rates = |rates: &[u64]| {
        let one = |rate| serde_json::json!({"major": 8, "minor": 0, "rate": rate});
        serde_json::json!({"blockIO": {"throttleReadBpsDevice": rates.iter().map(one).collect::<Vec<_>>()}})
    };
    assert_eq!(told(own, r#"{"BlkioDeviceReadBps":[]}"#), rates(&[0]));
    assert_eq!(told(own, r#"{"BlkioDeviceReadBps":[{"Path":"/dev/b","Rate":6}]}"#), rates(&[0, 6]));
    assert_eq!(told(own, r#"{"BlkioDeviceReadBps":null}"#), serde_json::json!({}));
}

#[test]
fn a_failed_update_is_taken_back() {
    let asked = r#"{"Memory":15000000,"MemorySwap":-1,"NanoCpus":500000000,"CpuShares":9,"PidsLimit":5}"#;
    assert_eq!(
        undone("{}", asked),
        serde_json::json!({"memory": {"limit": -1, "swap": -1}, "cpu": {"quota": -1, "period": 100000, "shares": 1024},
            "pids": {"limit": -1}})
    );
    let own = r#"{"Memory":10000000,"MemorySwap":20000000,"CpuShares":7,"PidsLimit":9}"#;
    assert_eq!(
        undone(own, r#"{"Memory":15000000}"#),
        serde_json::json!({"memory": {"limit": 10000000, "swap": 20000000}})
    );
}

proptest! {
    /// Whatever is asked: it is decided, and a decision asked for again changes nothing more.
    #[test]
    fn any_request_is_decided(memory in any::<i64>(), swap in any::<i64>(), nano in any::<i64>(), quota in any::<i64>(),
        pids in any::<i64>(), text in "[0-9,-]{0,8}") {
        let body = serde_json::json!({"Memory": memory, "MemorySwap": swap, "NanoCpus": nano, "CpuQuota": quota,
            "PidsLimit": pids, "CpusetCpus": text});
        if let Ok(first) = decide("{}", &body.to_string()) {
            let device = |_: &std::path::Path| None;
            let _ = (first.resources(&device), first.undo(&record("{}"), &device));
            let request = api_types::from_json(body.to_string().as_bytes()).unwrap();
            let again = update(&first.record, request, &facts()).unwrap();
            prop_assert_eq!(again.record, first.record);
        }
    }
}
