//! Rank 4: commands, messages, exit codes.
//!
//! [`main`] is the whole program: it parses the command line, hardens the process, runs one
//! command and turns its error into a message and an exit code. Each command stands in the file
//! of its name; `mount` goes on in `create` (what is missing), `background` (the daemon's start)
//! and `serve` (the daemon).

mod access_key;
mod adopt;
mod alias;
mod args;
mod args_access;
mod args_audit;
mod args_key_store;
mod args_keys;
mod args_kms;
mod args_replica;
mod args_serve;
mod audit;
mod background;
mod busy;
mod calls;
mod cat;
mod chores;
mod confine;
mod create;
mod doctor;
mod doctor_access;
mod doctor_machine;
mod elsewhere;
mod exit;
mod failure;
mod fsck;
mod grant;
mod helper;
mod init;
mod interrupt;
mod keeper;
mod key;
mod key_destroy;
mod key_policy;
mod key_store;
mod keys_from;
mod keystore;
mod kms;
mod kms_value;
mod live;
mod logging;
mod maintain;
mod metrics;
mod mount;
mod mountinfo;
mod mountpoint;
mod options;
mod output;
mod paths;
mod place;
mod policy;
mod principal;
mod printable;
mod process;
mod progress;
mod prompt;
mod reach;
mod replica;
mod rewrap;
mod serve;
mod serve_kms;
mod slots;
mod status;
mod steer;
mod survey;
mod trust;
mod umount;
mod unlock;
mod vault;
mod who;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use args::{Cli, Command};
use exit::{CliError, Exit};
use helper::CalledAs;
use output::Output;

/// Runs the command line and returns its exit code.
pub fn main(words: Vec<OsString>) -> ExitCode {
    let called_as = words.first().map_or(CalledAs::Program, |program| CalledAs::of(program));
    let Some(words) = called_as.translate(words) else { return ExitCode::SUCCESS };
    let wants_json = words.iter().take_while(|word| *word != "--").any(|word| word == "--json");
    let cli = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(error) => return not_understood(&error, wants_json),
    };
    process::harden();
    logging::start(cli.global.verbose);
    let output = if cli.global.json { Output::Json } else { Output::Text };
    let exit = run(&cli, output).unwrap_or_else(|error| {
        output.error(&error);
        error.exit
    });
    ExitCode::from(exit.code())
}

/// Prints help, or what is wrong with the command line.
fn not_understood(error: &clap::Error, wants_json: bool) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::from(Exit::Ok.code());
    }
    if !wants_json {
        // It repeats the words of the command line, which may be names of a vault.
        eprint!("{}", printable::lines(&error.to_string()));
        return ExitCode::from(Exit::Usage.code());
    }
    let text = error.to_string();
    let (what, advice) = text.split_once("\n\n").unwrap_or((&text, ""));
    let what = what.trim_start_matches("error: ").split_whitespace().collect::<Vec<_>>().join(" ");
    let what = if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        "a command is missing".to_owned()
    } else {
        what
    };
    Output::Json.error(&CliError::new(Exit::Usage, what).advise(advice.trim()));
    ExitCode::from(Exit::Usage.code())
}

fn run(cli: &Cli, output: Output) -> Result<Exit, CliError> {
    let global = &cli.global;
    match &cli.command {
        Command::Init(args) => init::run(args, global, output),
        Command::Mount(args) => mount::run(args, global, output),
        Command::Umount(args) => umount::run(args, output),
        Command::Status(args) => status::run(args, output),
        Command::Key(command) => key::run(command, global, output),
        Command::KeyStore(command) => key_store::run(command, global, output).map(|()| Exit::Ok),
        Command::Grant(command) => grant::run(command, global, output),
        Command::Principal(command) => principal::run(command, global, output),
        Command::AccessKey(command) => access_key::run(command, global, output),
        Command::Alias(command) => alias::run(command, global, output),
        Command::Keystore(command) => keystore::run(command, global, output),
        Command::Kms(command) => kms::run(command, global, output),
        Command::Audit(command) => audit::run(command, global, output),
        Command::Metrics(args) => metrics::run(args, global, output),
        Command::Doctor => doctor::run(global, output),
        Command::Rewrap(args) => rewrap::run(args, global, output),
        Command::Policy(command) => policy::run(command, output),
        Command::Adopt(args) => adopt::run(args, output),
        Command::Fsck(args) => fsck::run(args, global, output),
        Command::Cat(args) => cat::run(args, global),
        Command::Serve(args) => serve_kms::run(args, global, output),
    }
}

/// The key of a vault for which no other was named.
const DEFAULT_ALIAS: &str = "alias/kmsfs/default";
