//! Requests that nobody means: thousands of them, from a seed. Whatever comes, the answer is well
//! formed, and never that the keystore failed.

use std::time::SystemTime;

use base64ct::{Base64, Encoding};
use kmsfs::keystore::{Caller, Keystore, Principal, Source};
use kmsfs::server::Operation;
use kmsfs::server::dispatch::{self, Answer};
use kmsfs::server::keystores::Keystores;
use kmsfs::server::shape::{Member, Shape};
use serde_json::{Map, Value, json};

use crate::fixture::Home;

/// A generator of numbers that repeats from its seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    fn text(&mut self, most: usize) -> String {
        let letters: Vec<char> = "aZ0-_/:.{}\"\\é\u{7}\u{1f600} =,*".chars().collect();
        (0..self.below(most + 1)).map(|_| self.pick(&letters)).collect()
    }
}

/// A keystore with keys of several kinds, and what was seen in answers.
struct World {
    keystores: Keystores,
    texts: Vec<String>,
    blobs: Vec<String>,
    // Last: the directory goes after the keystore in it.
    _home: Home,
}

impl World {
    fn new() -> Self {
        let home = Home::new();
        let keystore: Keystore = home.keystore();
        let mut world = Self {
            keystores: Keystores::new(keystore),
            texts: vec!["alias/kmsfs/default".to_owned(), "default".to_owned()],
            blobs: Vec::new(),
            _home: home,
        };
        for request in [
            json!({}),
            json!({ "KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY" }),
            json!({ "KeySpec": "ECC_NIST_P256", "KeyUsage": "KEY_AGREEMENT" }),
            json!({ "KeySpec": "HMAC_256", "KeyUsage": "GENERATE_VERIFY_MAC" }),
            json!({ "Origin": "EXTERNAL" }),
        ] {
            world.ask("CreateKey", request.to_string().as_bytes());
        }
        world
    }

    fn ask(&mut self, operation: &str, body: &[u8]) -> Answer {
        let caller = Caller::new(Principal::Owner, Source::Network);
        let answer = dispatch::call(&self.keystores, None, operation, body, caller);
        if let Ok(value) = serde_json::from_slice::<Value>(&answer.body) {
            self.learn(&value);
        }
        answer
    }

    /// Ids, ciphertexts and tokens of answers make later requests go deeper.
    fn learn(&mut self, value: &Value) {
        for (name, value) in value.as_object().into_iter().flatten() {
            match value {
                Value::String(text) if name.ends_with("Blob") || name.contains("Token") => {
                    remember(&mut self.blobs, text);
                    remember(&mut self.texts, text);
                }
                Value::String(text) if name.ends_with("Id") || name.ends_with("Arn") => {
                    remember(&mut self.texts, text);
                }
                other => self.learn(other),
            }
        }
    }

    fn value(&self, shape: &Shape, dice: &mut Dice) -> Value {
        if dice.one_in(25) {
            return dice.pick(&[
                json!(null),
                json!(7),
                json!("x"),
                json!([]),
                json!({}),
                json!(1.5),
            ]);
        }
        match shape {
            Shape::Text { .. } if dice.one_in(4) => dice.text(300).into(),
            Shape::Text { .. } => dice.pick(&self.texts).into(),
            // The making of RSA keys takes its time.
            Shape::Choice(names) => {
                let cheap: Vec<&str> =
                    names.iter().copied().filter(|name| !name.starts_with("RSA_")).collect();
                if cheap.is_empty() { "RSA_1".into() } else { dice.pick(&cheap).into() }
            }
            Shape::Blob { .. } if !self.blobs.is_empty() && !dice.one_in(3) => {
                dice.pick(&self.blobs).into()
            }
            Shape::Blob { .. } => Base64::encode_string(&dice.bytes(200)).into(),
            Shape::Integer { range: (least, most) } => {
                dice.pick(&[*least, *most, *least - 1, *most + 1, i64::MAX, i64::MIN]).into()
            }
            Shape::Flag => dice.one_in(2).into(),
            Shape::Time => dice.pick(&[json!(0), json!(-1e300), json!(1e18), json!(4e9)]),
            Shape::Pairs => {
                (0..dice.below(4)).map(|_| (dice.text(20), Value::from(dice.text(20)))).collect()
            }
            Shape::List { of, .. } => (0..dice.below(4)).map(|_| self.value(of, dice)).collect(),
            Shape::Structure(members) => self.members(members, dice).into(),
        }
    }

    fn members(&self, members: &[Member], dice: &mut Dice) -> Map<String, Value> {
        let mut request = Map::new();
        for member in members {
            let there = if member.required { !dice.one_in(20) } else { dice.one_in(3) };
            if there {
                request.insert(member.name.to_owned(), self.value(member.shape, dice));
            }
        }
        request
    }
}

fn remember(seen: &mut Vec<String>, text: &str) {
    if seen.len() < 200 {
        seen.push(text.to_owned());
    }
}

/// Changes some bytes of a request.
fn damage(body: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..=dice.below(3) {
        if body.is_empty() {
            return;
        }
        let at = dice.below(body.len());
        match dice.below(4) {
            0 => body[at] = dice.next().to_le_bytes()[0],
            1 => body.truncate(at),
            2 => body.insert(at, dice.pick(b"{}[]\",:0\\\xff")),
            _ => {
                body.remove(at);
            }
        }
    }
}

fn check(operation: &str, body: &[u8], answer: &Answer) {
    let told = || format!("{operation} {}: {answer:?}", String::from_utf8_lossy(body));
    let value: Option<Value> = serde_json::from_slice(&answer.body).ok();
    match answer.error {
        None => {
            assert_eq!(answer.status, 200, "{}", told());
            assert!(
                answer.body.is_empty() || value.is_some_and(|value| value.is_object()),
                "{}",
                told()
            );
        }
        Some(name) => {
            assert_eq!(answer.status, 400, "{}", told());
            assert_eq!(value.expect("JSON")["__type"], name, "{}", told());
            assert!(name.ends_with("Exception"), "{}", told());
        }
    }
}

#[test]
fn no_request_brings_the_server_down_or_the_keystore_out_of_step() {
    let seed = std::env::var("KMSFS_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        u64::from(now.subsec_nanos())
    });
    println!("KMSFS_TEST_SEED={seed}");
    let mut dice = Dice(seed);
    let mut world = World::new();
    let operations: Vec<&Operation> = dispatch::operations().collect();
    let mut succeeded = 0;
    for _ in 0..ROUNDS {
        let operation = dice.pick(&operations);
        let request = Value::from(world.members(operation.members, &mut dice));
        let mut body = request.to_string().into_bytes();
        if dice.one_in(3) {
            damage(&mut body, &mut dice);
        }
        let answer = world.ask(operation.name, &body);
        check(operation.name, &body, &answer);
        succeeded += usize::from(answer.error.is_none());
    }
    assert!(succeeded > ROUNDS / 50, "only {succeeded} requests reached the keystore");
}

const ROUNDS: usize = 4000;
