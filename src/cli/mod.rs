//! Rank 4: commands, messages, exit codes.
//!
//! [`main`] is the whole program: it parses the command line, hardens the process, runs one
//! command and turns its error into a message and an exit code. Imports go down this list:
//!
//! - `commands`: what a person types, in rooms of what it is about
//! - `daemon`: the daemon of a mount
//! - `jobs`: what commands and daemons both do
//! - `env`: what there is around a command: paths, mounts, secrets, keys, daemons
//! - `args`: the command line
//! - `report`: exit codes, messages, tables, progress, the log

mod args;
mod commands;
mod daemon;
mod env;
mod jobs;
mod report;

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use args::helper::CalledAs;
use args::{Cli, Command};
use commands::{access, doctor, key, keystore, service, vault};
use env::process;
use report::exit::{CliError, Exit};
use report::output::{Output, remark};
use report::{logging, printable};

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
    let done = run(&cli, output).and_then(|exit| output.written().map(|()| exit));
    let exit = done.unwrap_or_else(|error| {
        output.error(&error);
        error.exit
    });
    ExitCode::from(exit.code())
}

/// Prints help, or what is wrong with the command line.
fn not_understood(error: &clap::Error, wants_json: bool) -> ExitCode {
    if !error.use_stderr() {
        let failed = error.print().is_err_and(|error| error.kind() != io::ErrorKind::BrokenPipe);
        return ExitCode::from(if failed { Exit::General } else { Exit::Ok }.code());
    }
    if !wants_json {
        // It repeats the words of the command line, which may be names of a vault.
        remark(printable::lines(&error.to_string()).trim_end());
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
        Command::Init(args) => vault::init::run(args, global, output),
        Command::Mount(args) => vault::mount::run(args, global, output),
        Command::Umount(args) => vault::umount::run(args, output),
        Command::Status(args) => vault::status::run(args, output),
        Command::Key(command) => key::run(command, global, output),
        Command::KeyStore(command) => {
            key::key_store::run(command, global, output).map(|()| Exit::Ok)
        }
        Command::Grant(command) => access::grant::run(command, global, output),
        Command::Principal(command) => access::principal::run(command, global, output),
        Command::AccessKey(command) => access::access_key::run(command, global, output),
        Command::Alias(command) => key::alias::run(command, global, output),
        Command::Keystore(command) => keystore::run(command, global, output),
        Command::Kms(command) => service::kms::run(command, global, output),
        Command::Audit(command) => keystore::audit::run(command, global, output),
        Command::Metrics(args) => keystore::metrics::run(args, global, output),
        Command::Doctor => doctor::run(global, output),
        Command::Rewrap(args) => vault::rewrap::run(args, global, output),
        Command::Policy(command) => vault::policy::run(command, output),
        Command::Adopt(args) => vault::adopt::run(args, output),
        Command::Fsck(args) => vault::fsck::run(args, global, output),
        Command::Cat(args) => vault::cat::run(args, global),
        Command::Serve(args) => service::serve::run(args, global, output),
    }
}
