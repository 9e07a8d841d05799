//! `kmsfs metrics`: counters in the text form of Prometheus.

use std::time::SystemTime;

use serde_json::{Value, json};

use crate::cli::args::Global;
use crate::cli::args::audit::MetricsArgs;
use crate::cli::env::keystore;
use crate::cli::env::mounts::daemon_client::Target;
use crate::cli::report::exit::{CliError, Exit};
use crate::cli::report::output::Output;
use crate::control::Request;

/// Prints the counters of a mount's daemon, or what the keystore itself knows.
pub(in crate::cli) fn run(
    args: &MetricsArgs,
    global: &Global,
    output: Output,
) -> Result<Exit, CliError> {
    let text = match &args.target {
        None => keystore::open(global)?.metrics_text(SystemTime::now())?,
        Some(named) => {
            let target = Target::find(named)?;
            let answer = target.call(&Request::Metrics, |_| true).ok_or_else(|| {
                let what = format!("{} is not mounted", target.vault.display());
                CliError::new(Exit::NotMounted, what)
                    .advise("without a vault, 'kmsfs metrics' shows what the keystore knows")
            })?;
            answer?.as_str().unwrap_or_default().to_owned()
        }
    };
    output.result(&json!({ "Metrics": Value::from(text.as_str()) }), || text.clone());
    Ok(Exit::Ok)
}
