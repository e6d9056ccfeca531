//! Waiting on blocking threads for what may not be wanted any more.

use std::time::Duration;

use tokio::runtime::Handle;

/// How often who waits looks whether it is still wanted.
pub const LOOK: Duration = Duration::from_millis(200);

/// Waits for the network, but not for longer than `is_wanted` says so; nothing then.
pub fn while_wanted<T>(
    runtime: &Handle,
    is_wanted: impl Fn() -> bool,
    wait: impl Future<Output = T>,
) -> Option<T> {
    runtime.block_on(async {
        let mut wait = std::pin::pin!(wait);
        while is_wanted() {
            if let Ok(done) = tokio::time::timeout(LOOK, &mut wait).await {
                return Some(done);
            }
        }
        None
    })
}
