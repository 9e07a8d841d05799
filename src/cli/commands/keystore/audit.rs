//! `kmsfs audit`: the log of everything that was done.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::cli::args::Global;
use crate::cli::args::audit::{AuditCommand, FilterArgs, Switch};
use crate::cli::env::{keystore, prompt};
use crate::cli::report::exit::{CliError, Exit};
use crate::cli::report::output::{Output, count, table, to_value};
use crate::crypto::ed25519::PublicKey;
use crate::keystore::Keystore;
use crate::keystore::audit::{
    AuditFilter, AuditMode, AuditRecord, AuditReport, EventTime, verify_export,
};

/// Runs one of the commands.
pub(in crate::cli) fn run(
    command: &AuditCommand,
    global: &Global,
    output: Output,
) -> Result<Exit, CliError> {
    if let AuditCommand::Verify { file: Some(file), public_key: Some(key) } = command {
        return verdict(&verify_file(file, key)?, output);
    }
    let filter = match command {
        AuditCommand::List { filter, .. } | AuditCommand::Export { filter } => chosen(filter)?,
        _ => AuditFilter::default(),
    };
    let keystore = keystore::open(global)?;
    match command {
        AuditCommand::List { last, .. } => list(&keystore, &filter, *last, output)?,
        AuditCommand::Export { .. } => export(&keystore, &filter)?,
        AuditCommand::Verify { .. } => return verdict(&keystore.verify_audit()?, output),
        AuditCommand::Key => {
            let pem = keystore.audit_public_key();
            output.result(&json!({ "PublicKey": pem }), || pem.clone());
        }
        AuditCommand::Require { mode } => require(&keystore, *mode, output)?,
        AuditCommand::Prune { before, yes } => prune(&keystore, before, *yes, output)?,
    }
    Ok(Exit::Ok)
}

fn chosen(args: &FilterArgs) -> Result<AuditFilter, CliError> {
    let time = |text: &Option<String>| text.as_deref().map(moment).transpose();
    Ok(AuditFilter {
        since: time(&args.since)?,
        until: time(&args.until)?,
        principal: args.principal.clone(),
        operation: args.operation.clone(),
        key: args.key.clone(),
        result: args.result.clone(),
        source: args.source.clone(),
    })
}

/// A time as people write it: RFC 3339, a date in UTC, or so long ago.
fn moment(text: &str) -> Result<EventTime, CliError> {
    let date = || {
        let date: jiff::civil::Date = text.parse().ok()?;
        let start = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
        Some(EventTime::from_millis(start.timestamp().as_millisecond()))
    };
    let found = text.parse().ok().or_else(|| ago(text)).or_else(date);
    found.ok_or_else(|| {
        CliError::new(Exit::Usage, format!("'{text}' is no time"))
            .advise("write 2026-01-31, 2026-01-31T12:00:00Z, or 7d, 12h, 30m for so long ago")
    })
}

fn ago(text: &str) -> Option<EventTime> {
    let unit = match text.chars().last()? {
        'd' => 86_400,
        'h' => 3600,
        'm' => 60,
        _ => return None,
    };
    let number: u64 = text.get(..text.len() - 1)?.parse().ok()?;
    let long = Duration::from_secs(number.checked_mul(unit)?);
    SystemTime::now().checked_sub(long).map(EventTime::from)
}

fn list(
    keystore: &Keystore,
    filter: &AuditFilter,
    last: Option<usize>,
    output: Output,
) -> Result<(), CliError> {
    let mut found = VecDeque::new();
    keystore.audit_records(filter, |record| {
        found.push_back(record);
        if last.is_some_and(|last| found.len() > last) {
            found.pop_front();
        }
        ControlFlow::Continue(())
    })?;
    let values: Vec<Value> = found.iter().map(to_value).collect::<Result<_, _>>()?;
    output.result(&Value::Array(values), || {
        if found.is_empty() {
            return "no such records".to_owned();
        }
        let rows: Vec<_> = found.iter().map(row).collect();
        table(&["TIME", "WHO", "BY", "OPERATION", "KEY", "RESULT", ""], &rows)
    });
    Ok(())
}

fn row(record: &AuditRecord) -> Vec<String> {
    let event = &record.event;
    let end = |arn: &str, mark: &str| {
        arn.split_once(mark).map_or_else(|| arn.to_owned(), |(_, name)| name.to_owned())
    };
    let mut more = event.detail.clone().unwrap_or_default();
    if event.count > 1 {
        more = format!("{} times {more}", event.count);
    }
    if let Some(file) = &event.file {
        more = format!("file {file} {more}");
    }
    vec![
        event.time.to_string(),
        end(end(&event.principal, "000000000000:").as_str(), "user/"),
        event.source.to_string(),
        event.operation.to_string(),
        event.key.as_deref().map(|arn| end(arn, ":key/")).unwrap_or_default(),
        event.result.to_string(),
        more,
    ]
}

fn export(keystore: &Keystore, filter: &AuditFilter) -> Result<(), CliError> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    keystore.export_audit(filter, &mut out, SystemTime::now())?;
    out.flush().map_err(|error| CliError::io("cannot write the export", &error))
}

fn verify_file(file: &Path, key: &Path) -> Result<AuditReport, CliError> {
    let failed = |path: &Path, error: &std::io::Error| CliError::io(path.display(), error);
    let pem = std::fs::read_to_string(key).map_err(|error| failed(key, &error))?;
    let public = PublicKey::from_pem(&pem).ok_or_else(|| {
        CliError::new(Exit::Usage, format!("{} is no public key of an audit log", key.display()))
            .advise("'kmsfs audit key' writes one")
    })?;
    let export = File::open(file).map_err(|error| failed(file, &error))?;
    verify_export(BufReader::new(export), &public).map_err(|error| failed(file, &error))
}

fn verdict(report: &AuditReport, output: Output) -> Result<Exit, CliError> {
    output.result(&to_value(report)?, || verdict_in_words(report));
    Ok(if report.is_clean() { Exit::Ok } else { Exit::Damage })
}

fn verdict_in_words(report: &AuditReport) -> String {
    let records = count(report.records, "record");
    if !report.is_clean() {
        let first = report.first_bad.unwrap_or_default();
        return format!(
            "not as it was written, from record {first} on; {records} were looked at\n{}",
            report.problems.join("\n")
        );
    }
    let (Some(first), Some(last)) = (report.first, report.last) else {
        return "nothing was written yet".to_owned();
    };
    let mut text = format!("intact: {records}, {first} to {last}");
    if report.partial {
        text.push_str("; others were left out, so it does not show that none is missing");
        return text;
    }
    match report.signed_until {
        Some(signed) => text.push_str(&format!("; signed up to record {signed}")),
        None => text.push_str("; nothing is signed yet"),
    }
    if report.lost > 0 {
        let lost = count(report.lost, "event");
        text.push_str(&format!("\n{lost} could not be written when they happened"));
    }
    text
}

fn require(keystore: &Keystore, mode: Switch, output: Output) -> Result<(), CliError> {
    let (mode, words) = match mode {
        Switch::On => (AuditMode::Required, "what cannot be written down is refused from now on"),
        Switch::Off => (AuditMode::BestEffort, "operations no longer wait for the audit log"),
    };
    keystore.set_audit_mode(mode)?;
    output.result(&json!({ "Mode": mode.as_str() }), || words.to_owned());
    Ok(())
}

fn prune(keystore: &Keystore, before: &str, yes: bool, output: Output) -> Result<(), CliError> {
    let before = moment(before)?;
    let doomed = keystore.prunable_audit(before)?;
    if doomed > 0 {
        let records = count(doomed, "record");
        let warning = format!("{records} from before {before} will be gone: export them first");
        prompt::confirm(&warning, yes)?;
    }
    let pruned = keystore.prune_audit(before, SystemTime::now())?;
    output.result(&to_value(&pruned)?, || match pruned.until {
        Some(until) => format!("removed {}, up to number {until}", count(pruned.removed, "record")),
        None => format!("no record is from before {before}"),
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_understood_in_three_forms() {
        let day = EventTime::from_millis(1_769_817_600_000);
        assert_eq!(moment("2026-01-31").unwrap(), day);
        assert_eq!(moment("2026-01-31T00:00:00Z").unwrap(), day);
        let hour = moment("1h").unwrap().millis();
        let expected = EventTime::from(SystemTime::now()).millis() - 3_600_000;
        assert!((hour - expected).abs() < 60_000);
        for text in ["", "d", "x", "-1d", "99999999999999999999d", "2026-13-01"] {
            assert!(moment(text).is_err(), "{text}");
        }
    }
}
