//! `kmsfs serve`: the keystore as an endpoint of AWS KMS.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use sd_notify::NotifyState;
use serde_json::json;

use crate::cli::args::Global;
use crate::cli::args::serve::ServeArgs;
use crate::cli::env::unlock::Source;
use crate::cli::env::{paths, process};
use crate::cli::jobs::maintenance::Maintenance;
use crate::cli::report::exit::{CliError, Exit};
use crate::cli::report::output::Output;
use crate::keystore::{Caller, Keystore};
use crate::server::keystores::Keystores;
use crate::server::{
    Config, Limits, Listen, Server, ServerError, SocketAccess, TlsFiles, Unsigned,
};
use crate::sys;

/// Serves until a signal.
pub(in crate::cli) fn run(
    args: &ServeArgs,
    global: &Global,
    output: Output,
) -> Result<Exit, CliError> {
    let config = config(args)?;
    let addresses: Result<Vec<Listen>, ServerError> =
        args.listen.iter().map(|address| address.parse()).collect();
    let addresses = addresses?;
    process::bound_heap();
    process::raise_open_files();
    process::lock_secrets();
    let (keystores, _maintenance) = open(args, global)?;
    process::lock_memory();
    let passed = passed_sockets()
        .map_err(|error| CliError::io("cannot take over the sockets of systemd", &error))?;
    let server = Server::bind(&config, &addresses, passed, keystores)?;
    let listening = server.addresses();
    let metrics = server.metrics().map(|address| format!("http://{address}/metrics"));
    output.result(&json!({ "listening": listening, "metrics": metrics }), || {
        let lines = listening.iter().map(|address| format!("listening at {address}"));
        let metrics = metrics.iter().map(|address| format!("metrics at {address}"));
        lines.chain(metrics).collect::<Vec<_>>().join("\n")
    });
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    let served = server.run();
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    Ok(served.map(|()| Exit::Ok)?)
}

fn config(args: &ServeArgs) -> Result<Config, CliError> {
    let tls = args.tls_cert.as_ref().zip(args.tls_key.as_ref());
    let connections = usize::try_from(args.max_connections).unwrap_or(usize::MAX);
    Ok(Config {
        region: region(&args.region)?,
        unsigned: if args.allow_unsigned { Unsigned::Accepted } else { Unsigned::Refused },
        socket: SocketAccess {
            mode: mode(&args.socket_mode)?,
            group: args.socket_group.as_deref().map(group).transpose()?,
        },
        tls: tls.map(|(certificate, key)| TlsFiles {
            certificate: certificate.clone(),
            key: key.clone(),
        }),
        metrics: args.metrics,
        limits: Limits::default().with_connections(connections),
    })
}

/// Opens the keystores. What is due by date in them is done while this lives.
fn open(args: &ServeArgs, global: &Global) -> Result<(Keystores, Vec<Maintenance>), CliError> {
    let source = Source::choose(global)?;
    let open = |path: &Path| -> Result<Keystore, CliError> {
        Ok(Keystore::open(path, &source.take(path)?)?)
    };
    let first = open(&paths::keystore(global)?)?;
    if !args.replica.is_empty() {
        first.adopt_region(&region(&args.region)?)?;
    }
    let mut keystores = Keystores::new(first);
    for replica in &args.replica {
        let (name, path) = replica
            .split_once('=')
            .ok_or_else(|| usage(format!("'{replica}' is not of the form REGION=KEYSTORE")))?;
        let keystore = open(&paths::absolute(&PathBuf::from(path))?)?;
        keystore.adopt_region(&region(name)?)?;
        keystores.add_region(name, keystore);
    }
    let maintenance = maintenance(&keystores);
    Ok((keystores, maintenance))
}

/// Starts what each keystore has to do by date, and to bring to the others.
fn maintenance(keystores: &Keystores) -> Vec<Maintenance> {
    let all = || keystores.all().map(|(_, keystore)| keystore.acting_for(Caller::owner()));
    let start = |keystore: Keystore| {
        let keystore = Arc::new(keystore);
        let (own, others) = (Arc::clone(&keystore), all().collect::<Vec<_>>());
        Maintenance::start(&keystore, move || {
            if let Err(error) = own.sync_replicas(&others, SystemTime::now()) {
                log::warn!("replicas of multi-Region keys: {error}");
            }
        })
    };
    all().filter_map(start).collect()
}

/// A region is part of ARNs.
fn region(text: &str) -> Result<String, CliError> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=32).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(text.to_owned());
    }
    Err(usage(format!("'{text}' is no region: lower case letters, digits and dashes are expected")))
}

fn mode(text: &str) -> Result<u32, CliError> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| usage(format!("'{text}' is no mode: three octal digits are expected")))
}

fn group(name: &str) -> Result<u32, CliError> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let groups = std::fs::read_to_string("/etc/group")
        .map_err(|error| CliError::io("cannot read /etc/group", &error))?;
    group_in(&groups, name)
        .ok_or_else(|| usage(format!("no group '{name}' in /etc/group: give its number")))
}

/// Source: group(5), `name:password:number:members`.
fn group_in(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

/// The sockets of a systemd socket unit.
fn passed_sockets() -> io::Result<Vec<OwnedFd>> {
    sd_notify::listen_fds()?.map(|number| Ok(sys::copy_of(number)?)).collect()
}

impl From<ServerError> for CliError {
    fn from(error: ServerError) -> Self {
        use ServerError as E;
        let exit = match &error {
            E::Listen { .. }
            | E::Nowhere
            | E::NeedsTls(_)
            | E::UnsignedElsewhere(_)
            | E::MetricsElsewhere(_) => Exit::Usage,
            E::InUse(_) | E::NotASocket(_) | E::Exposed { .. } | E::Tls { .. } | E::Io { .. } => {
                Exit::General
            }
        };
        Self::new(exit, error.to_string())
    }
}

fn usage(what: String) -> CliError {
    CliError::new(Exit::Usage, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_groups_and_regions_are_read() {
        assert_eq!(mode("660").unwrap(), 0o660);
        assert!(mode("1777").is_err() && mode("rw").is_err());
        assert_eq!(group_in("root:x:0:\nkms:x:812:ann,bob\n", "kms"), Some(812));
        assert_eq!(group_in("root:x:0:\n", "kms"), None);
        assert_eq!(region("eu-west-1").unwrap(), "eu-west-1");
        assert!(region("EU:west").is_err() && region("").is_err());
    }
}
