//! The argument tree below `kms`: one command per operation of the AWS KMS API, one option per
//! member of its request. Made from the table that the endpoint decodes requests with.

use clap::builder::Str;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches, Subcommand};
use serde_json::Map;

use super::kms_source::KmsArgs;
use super::kms_value::{self, Given};
use crate::server::shape::{Member, Shape};
use crate::server::{Operation, dispatch};

/// `kmsfs kms OPERATION`: an operation, and what the command line says about its members.
#[derive(Debug)]
pub(in crate::cli) struct KmsCommand {
    /// The operation.
    pub operation: &'static Operation,
    /// The members that options name, in the order of the table.
    pub given: Vec<(&'static Member, Given)>,
    /// A file with a request, which options change; `-` for stdin.
    pub input: Option<String>,
    /// An endpoint to ask, instead of the keystore on this machine.
    pub kms: KmsArgs,
}

impl Subcommand for KmsCommand {
    fn augment_subcommands(command: Command) -> Command {
        command
            .subcommands(dispatch::operations().map(subcommand))
            .subcommand_required(true)
            .arg_required_else_help(true)
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        dispatch::operations().any(|operation| kebab(operation.name) == name)
    }
}

impl FromArgMatches for KmsCommand {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let missing = || Error::new(clap::error::ErrorKind::MissingSubcommand);
        let (name, matches) = matches.subcommand().ok_or_else(missing)?;
        let mut operations = dispatch::operations();
        let operation = operations.find(|operation| kebab(operation.name) == name);
        let operation = operation.ok_or_else(missing)?;
        let members = operation.members.iter();
        Ok(Self {
            operation,
            given: members.filter_map(|member| Some((member, given(member, matches)?))).collect(),
            input: matches.get_one::<String>(INPUT).cloned(),
            kms: KmsArgs::from_arg_matches(matches)?,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl KmsCommand {
    /// The request: that of the file, changed by the options.
    /// Errors: what cannot be read or makes no value, in words.
    pub(in crate::cli) fn request(&self) -> Result<serde_json::Value, String> {
        let mut request = match &self.input {
            Some(input) => kms_value::request(input)?,
            None => Map::new(),
        };
        for (member, given) in &self.given {
            let value = kms_value::value(member.shape, given)
                .map_err(|problem| format!("--{}: {problem}", kebab(member.name)))?;
            request.insert(member.name.to_owned(), value);
        }
        Ok(request.into())
    }
}

fn given(member: &Member, matches: &ArgMatches) -> Option<Given> {
    let name = kebab(member.name);
    if let Shape::Flag = member.shape {
        let is_set = |name: &str| matches.get_flag(name).then_some(());
        let yes = is_set(&name).map(|()| Given::Flag(true));
        return yes.or_else(|| is_set(&negated(&name)).map(|()| Given::Flag(false)));
    }
    let words = matches.get_many::<String>(&name)?;
    Some(Given::Words(words.cloned().collect()))
}

fn subcommand(operation: &'static Operation) -> Command {
    let command = Command::new(Str::from(kebab(operation.name))).display_order(0);
    let command = operation.members.iter().fold(command, |command, member| {
        let name = kebab(member.name);
        match member.shape {
            Shape::Flag => {
                let no = negated(&name);
                command
                    .arg(flag(&name, &format!("{}: true", member.name)).overrides_with(no.clone()))
                    .arg(flag(&no, &format!("{}: false", member.name)).overrides_with(name))
            }
            _ => command.arg(option(member, name)),
        }
    });
    let input = Arg::new(INPUT)
        .long(INPUT)
        .value_name("FILE")
        .help("A request as JSON, '-' for stdin; options change it");
    // The options bring a description of their own, which is not that of the operation.
    let command = KmsArgs::augment_args(command.arg(input)).about(operation.about).long_about(None);
    match operation.name {
        "ScheduleKeyDeletion" => command.after_help(NOT_ASKED),
        _ => command,
    }
}

fn option(member: &'static Member, name: String) -> Arg {
    let arg = Arg::new(Str::from(name.clone()))
        .long(name)
        .value_name(value_name(member.shape))
        .help(help(member))
        .allow_hyphen_values(matches!(member.shape, Shape::Text { .. } | Shape::Integer { .. }));
    match member.shape {
        Shape::List { .. } => arg.num_args(0..).action(ArgAction::Append),
        _ => arg,
    }
}

fn flag(name: &str, help: &str) -> Arg {
    Arg::new(Str::from(name.to_owned()))
        .long(name.to_owned())
        .help(help.to_owned())
        .action(ArgAction::SetTrue)
}

fn help(member: &Member) -> String {
    let needed = if member.required { " (needed)" } else { "" };
    let form = match member.shape {
        Shape::Choice(names) => format!(": {}", names.join(", ")),
        Shape::Blob { .. } => ": fileb://PATH, or base64".to_owned(),
        Shape::Integer { range: (least, most) } => format!(": {least} to {most}"),
        Shape::Time => ": 2030-01-31T12:00:00Z, or seconds since 1970".to_owned(),
        Shape::Pairs => ": k=v,k2=v2, or JSON".to_owned(),
        Shape::Structure(_) => ": name=value,name2={k=v}, or JSON".to_owned(),
        Shape::List { of: Shape::Structure(members), .. } => {
            let parts: Vec<String> =
                members.iter().map(|member| format!("{}=...", member.name)).collect();
            format!(": {} ..., or JSON", parts.join(","))
        }
        Shape::List { .. } => ": several words, or JSON".to_owned(),
        Shape::Text { .. } => ", or file://PATH".to_owned(),
        Shape::Flag => String::new(),
    };
    format!("{}{needed}{form}", member.name)
}

fn value_name(shape: &Shape) -> &'static str {
    match shape {
        Shape::Text { .. } | Shape::Flag => "TEXT",
        Shape::Choice(_) => "NAME",
        Shape::Blob { .. } => "BLOB",
        Shape::Integer { .. } => "NUMBER",
        Shape::Time => "TIME",
        Shape::Pairs => "PAIRS",
        Shape::List { .. } => "VALUE",
        Shape::Structure(_) => "PARTS",
    }
}

fn negated(name: &str) -> String {
    format!("no-{name}")
}

/// `KeyId` as the AWS CLI spells it: `key-id`.
pub(in crate::cli) fn kebab(name: &str) -> String {
    let mut out = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !out.is_empty() {
            out.push('-');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

const INPUT: &str = "cli-input-json";
const NOT_ASKED: &str = "Neither asks nor counts the files that would be lost: \
     'kmsfs key schedule-deletion' does.";

#[cfg(test)]
mod tests {
    use super::*;

    /// About fifty operations were described as "options of every command that opens a vault".
    #[test]
    fn regression_every_operation_is_described_by_its_own_words() {
        for operation in dispatch::operations() {
            let mut command = subcommand(operation);
            assert_eq!(command.get_about().unwrap().to_string(), operation.about);
            assert!(command.render_long_help().to_string().starts_with(operation.about));
        }
    }
}
