//! Asks a person in the middle of a task.

use crate::context::TaskContext;
use crate::host::error::ModuleError;
use crate::host::files::blocking::detached;
use crate::host::process::error::ControlError;

/// Asks a person, who may take as long as they like; reading a terminal blocks, so an
/// interruption leaves the thread behind.
///
/// # Errors
/// [`ModuleError::Cancelled`], or that nobody confirmed.
pub async fn ask(ctx: &TaskContext, prompt: &str) -> Result<String, ModuleError> {
    let confirm = std::sync::Arc::clone(&ctx.confirm);
    let question = prompt.to_owned();
    let asking = detached("question", move || confirm.confirm(&question));
    let answer = tokio::select! {
        () = ctx.cancel.cancelled() => return Err(ModuleError::Cancelled),
        answer = asking => answer?,
    };
    answer.map_err(|reason| {
        ControlError::NotConfirmed {
            prompt: prompt.to_owned(),
            reason,
        }
        .into()
    })
}
