//! Runs a module's file work on a thread that may block.

use crate::error::ModuleError;
use crate::worker;

/// Runs `work` with copies of the module and context.
///
/// The work sees `ctx.cancel` and must look at it: a blocking thread cannot be stopped from outside.
///
/// # Errors
/// What `work` returns.
pub async fn blocking<M, C, T>(
    module: &M,
    ctx: &C,
    work: impl FnOnce(&M, &C) -> Result<T, ModuleError> + Send + 'static,
) -> Result<T, ModuleError>
where
    M: Clone + Send + 'static,
    C: Clone + Send + 'static,
    T: Send + 'static,
{
    let (module, ctx) = (module.clone(), ctx.clone());
    worker::blocking("work on files", move || work(&module, &ctx)).await?
}

/// Runs work that nobody can interrupt (a terminal, a silent server) on a thread of its own, which is
/// left behind when the caller gives up. On the runtime's threads it would hold up the agent's end.
///
/// # Errors
/// The work panicked.
pub async fn detached<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ModuleError> {
    let (send, receive) = tokio::sync::oneshot::channel();
    #[expect(clippy::disallowed_methods, reason = "the work is caught")]
    std::thread::spawn(move || {
        // Nobody may be listening any more.
        let _ = send.send(worker::caught(name, work));
    });
    match receive.await {
        Ok(done) => Ok(done?),
        // Caught inside, so that it always answers.
        Err(_) => Err(ModuleError::Cancelled),
    }
}
