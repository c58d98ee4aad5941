//! Tasks that must not end while the process runs.

use tokio::task::{JoinHandle, JoinSet};

/// The name of a task, once the task has ended: in order or by a panic.
pub(super) async fn named<T>(name: &'static str, task: JoinHandle<T>) -> &'static str {
    // Its result is in the log.
    let _ = task.await;
    name
}

/// The name of the first of these tasks that ends. They must not: the process would go on with a part of it dead.
pub(super) async fn one_ended(tasks: &mut JoinSet<&'static str>) -> &'static str {
    match tasks.join_next().await {
        Some(ended) => ended.unwrap_or("a task"),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_or_panics_is_named() {
        for panics in [false, true] {
            let mut tasks = JoinSet::new();
            tasks.spawn(named("one", tokio::spawn(std::future::pending::<()>())));
            tasks.spawn(named(
                "two",
                tokio::spawn(async move { assert!(!panics, "as told") }),
            ));
            assert_eq!(one_ended(&mut tasks).await, "two");
        }
    }
}
