//! Condition operators: how one value of a request is compared with one of a policy.

use std::net::IpAddr;

use super::pattern::{Pattern, Syntax};
use super::request::Request;

/// An operator without its prefix, its suffix and its `Not`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equals,
    EqualsIgnoreCase,
    Like,
    Bool,
    Numeric(Order),
    Date(Order),
    Address,
    Arn,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A value of a policy, parsed for its operator.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expected {
    Text(Pattern),
    Bool(bool),
    Number(f64),
    /// Units: nanoseconds since 1970.
    Instant(i128),
    Network(Network),
}

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Network {
    bits: u128,
    mask: u128,
    v4: bool,
}

impl Comparison {
    /// The operator with this name, and whether it is negated.
    pub(super) fn named(name: &str) -> Option<(Self, bool)> {
        let known = NAMES.iter().find(|(known, ..)| *known == name);
        known.map(|(_, comparison, negated)| (*comparison, *negated))
    }

    /// Reads a value of a policy; the error says what would have been one.
    pub(super) fn expect(self, text: &str, variables: bool) -> Result<Expected, &'static str> {
        let pattern = |wildcards| Pattern::parse(text, Syntax { wildcards, variables });
        let no_variable = |_| "a text whose ${variables} are condition keys";
        match self {
            Self::Equals | Self::EqualsIgnoreCase => {
                pattern(false).map(Expected::Text).map_err(no_variable)
            }
            Self::Like => pattern(true).map(Expected::Text).map_err(no_variable),
            Self::Arn => {
                let pattern = pattern(true).map_err(no_variable)?;
                if pattern.is_arn() { Ok(Expected::Text(pattern)) } else { Err("an ARN") }
            }
            Self::Bool => boolean(text).map(Expected::Bool).ok_or("true or false"),
            Self::Numeric(_) => number(text).map(Expected::Number).ok_or("a number"),
            Self::Date(_) => instant(text)
                .map(Expected::Instant)
                .ok_or("a date such as 2026-12-31T23:59:59Z, or seconds since 1970"),
            Self::Address => Network::parse(text)
                .map(Expected::Network)
                .ok_or("an address or a range such as 192.0.2.0/24"),
        }
    }

    /// True if a value of the request agrees with one of the policy. A value of another type never does.
    pub(super) fn agrees(self, expected: &Expected, value: &str, request: &Request<'_>) -> bool {
        match expected {
            Expected::Text(pattern) => {
                pattern.resolved(request).is_some_and(|pattern| match self {
                    Self::EqualsIgnoreCase => pattern.matches_ignoring_case(value),
                    Self::Arn => pattern.matches_arn(value),
                    _ => pattern.matches(value),
                })
            }
            Expected::Bool(expected) => boolean(value) == Some(*expected),
            Expected::Number(expected) => {
                number(value).is_some_and(|value| self.order().holds(value.partial_cmp(expected)))
            }
            Expected::Instant(expected) => {
                instant(value).is_some_and(|value| self.order().holds(Some(value.cmp(expected))))
            }
            Expected::Network(network) => value.parse().is_ok_and(|ip| network.contains(ip)),
        }
    }

    fn order(self) -> Order {
        match self {
            Self::Numeric(order) | Self::Date(order) => order,
            _ => Order::Equal,
        }
    }
}

impl Order {
    fn holds(self, found: Option<std::cmp::Ordering>) -> bool {
        found.is_some_and(|found| match self {
            Self::Equal => found.is_eq(),
            Self::Less => found.is_lt(),
            Self::LessOrEqual => found.is_le(),
            Self::Greater => found.is_gt(),
            Self::GreaterOrEqual => found.is_ge(),
        })
    }
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix: u32 = prefix.map_or(Ok(width), str::parse).ok()?;
        if prefix > width {
            return None;
        }
        // An IPv4 address lies in the last 32 bits.
        let host = width - prefix;
        let mask = u128::MAX.checked_shl(host).unwrap_or(0);
        Some(Self { bits: bits(address) & mask, mask, v4: address.is_ipv4() })
    }

    fn contains(self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.v4 && bits(address) & self.mask == self.bits
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

pub(super) fn boolean(text: &str) -> Option<bool> {
    [true, false].into_iter().find(|value| text.eq_ignore_ascii_case(&value.to_string()))
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// A time in ISO 8601, a day, or seconds since 1970.
fn instant(text: &str) -> Option<i128> {
    if let Ok(seconds) = text.parse::<i64>() {
        return Some(i128::from(seconds) * 1_000_000_000);
    }
    let day = || {
        let day: jiff::civil::Date = text.parse().ok()?;
        Some(day.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    };
    let found: Option<jiff::Timestamp> = text.parse().ok().or_else(day);
    found.map(jiff::Timestamp::as_nanosecond)
}

const NAMES: &[(&str, Comparison, bool)] = {
    use Comparison::{Address, Arn, Bool, Date, Equals, EqualsIgnoreCase, Like, Numeric};
    use Order::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual};
    &[
        ("StringEquals", Equals, false),
        ("StringNotEquals", Equals, true),
        ("StringEqualsIgnoreCase", EqualsIgnoreCase, false),
        ("StringNotEqualsIgnoreCase", EqualsIgnoreCase, true),
        ("StringLike", Like, false),
        ("StringNotLike", Like, true),
        ("Bool", Bool, false),
        ("NumericEquals", Numeric(Equal), false),
        ("NumericNotEquals", Numeric(Equal), true),
        ("NumericLessThan", Numeric(Less), false),
        ("NumericLessThanEquals", Numeric(LessOrEqual), false),
        ("NumericGreaterThan", Numeric(Greater), false),
        ("NumericGreaterThanEquals", Numeric(GreaterOrEqual), false),
        ("DateEquals", Date(Equal), false),
        ("DateNotEquals", Date(Equal), true),
        ("DateLessThan", Date(Less), false),
        ("DateLessThanEquals", Date(LessOrEqual), false),
        ("DateGreaterThan", Date(Greater), false),
        ("DateGreaterThanEquals", Date(GreaterOrEqual), false),
        ("IpAddress", Address, false),
        ("NotIpAddress", Address, true),
        ("ArnEquals", Arn, false),
        ("ArnLike", Arn, false),
        ("ArnNotEquals", Arn, true),
        ("ArnNotLike", Arn, true),
    ]
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_their_addresses() {
        for (network, address, expected) in [
            ("192.0.2.0/24", "192.0.2.255", true),
            ("192.0.2.0/24", "192.0.3.0", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("192.0.2.0/24", "::ffff:192.0.2.1", true),
            ("2001:db8::/32", "2001:db8:1::", true),
            ("::/0", "2001:db8::1", true),
            ("::1/128", "::2", false),
        ] {
            let contained = Network::parse(network).unwrap().contains(address.parse().unwrap());
            assert_eq!(contained, expected, "{network} {address}");
        }
        for text in ["", "192.0.2.0/33", "::/129", "192.0.2", "192.0.2.0/-1", "host"] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }

    #[test]
    fn instants_are_read_in_the_forms_of_aws() {
        let second = 1_767_225_600 * 1_000_000_000;
        for text in
            ["2026-01-01T00:00:00Z", "2026-01-01", "1767225600", "2026-01-01T02:00:00+02:00"]
        {
            assert_eq!(instant(text), Some(second), "{text}");
        }
        for text in ["", "yesterday", "2026-13-01", "1e400"] {
            assert_eq!(instant(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_number_is_none() {
        for text in ["", "NaN", "inf", "1e999", "0x10", "1_000"] {
            assert_eq!(number(text), None, "{text}");
        }
        assert_eq!(number("-1.5"), Some(-1.5));
    }
}
