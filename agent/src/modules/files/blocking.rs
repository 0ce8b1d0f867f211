//! Runs a module's file work on a thread that may block.

use crate::modules::{ModuleError, TaskContext};

/// Runs `work` with copies of the module and context; a panic inside goes on outside.
///
/// The work sees `ctx.cancel` and must look at it: a blocking thread cannot be stopped from outside.
///
/// # Errors
/// What `work` returns.
pub async fn blocking<M, T>(
    module: &M,
    ctx: &TaskContext,
    work: impl FnOnce(&M, &TaskContext) -> Result<T, ModuleError> + Send + 'static,
) -> Result<T, ModuleError>
where
    M: Clone + Send + 'static,
    T: Send + 'static,
{
    let (module, ctx) = (module.clone(), ctx.clone());
    match tokio::task::spawn_blocking(move || work(&module, &ctx)).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that is being shut down drops blocking work.
            Err(_) => Err(ModuleError::Cancelled),
        },
    }
}

/// Runs work that nobody can interrupt (a terminal, a silent server) on a thread of its own, which is
/// left behind when the caller gives up. On the runtime's threads it would hold up the agent's end.
///
/// # Errors
/// `None` when the work panicked, which has been reported by then.
pub async fn detached<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (send, receive) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        // Nobody may be listening any more.
        let _ = send.send(work());
    });
    receive.await.ok()
}
