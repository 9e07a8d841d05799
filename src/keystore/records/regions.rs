//! Which keystore has the primary key, and how that role moves between keystores that may never
//! have met.
//!
//! Who gives the role away signs that: a [`HandOver`]. The hand-overs of a key are a chain, and its
//! length is the *term*, which only grows. Each related key has the chain up to some term, and so
//! has each transfer. A transfer is believed if its chain goes on from the holder that is known:
//!
//! | what arrives | what becomes of it |
//! |---|---|
//! | a sync by the known holder, of the same term | taken |
//! | a sync by a later holder that the known one, or its successors, signed for | taken, and the holder noted |
//! | a sync by a former holder that has not heard of the hand-over | `Superseded` |
//! | a hand-over that was sealed again, because the first file was lost | taken, once |
//! | the same, after it was received or the role moved on (A to B, B to A, and the old file to B) | `Superseded` |
//! | a second hand-over of one term, by a holder that was put back from an old copy | `Superseded` |
//! | anything else from a replica's keystore, whatever it says it is | `NotPrimary` |
//!
//! And none is sealed by who gave the role away, but for the keystore that it was given to.

use serde::{Deserialize, Serialize};

use crate::crypto::ed25519::SigningKey;
use crate::id::KeyId;
use crate::keystore::error::replica::ReplicaError;
use crate::keystore::model::caller;
use crate::keystore::records::transfer::{Transfer, TransferKey, TransferKind, verify};
use crate::keystore::storage::root::encode_parts;
use crate::keystore::storage::sealed::base64;

/// What a keystore knows about the related keys of one of its multi-Region keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::keystore) struct Regions {
    /// The Region of this keystore.
    pub(in crate::keystore) own: String,
    /// Where the primary key is.
    pub(in crate::keystore) primary: Holder,
    /// Where the replicas are.
    pub(in crate::keystore) replicas: Vec<String>,
    /// How the primary key came there. Their number is the term.
    pub(in crate::keystore) hand_overs: Vec<HandOver>,
    /// The waiting period that starts when the last replica is gone. Units: days.
    pub(in crate::keystore) waiting_days: Option<u16>,
}

impl Regions {
    /// Of a new primary key, in the keystore with this identity.
    pub(in crate::keystore) fn primary_in(region: String, identity: String) -> Self {
        Self {
            own: region.clone(),
            primary: Holder { region, identity },
            replicas: Vec::new(),
            hand_overs: Vec::new(),
            waiting_days: None,
        }
    }

    pub(in crate::keystore) fn is_primary(&self) -> bool {
        self.own == self.primary.region
    }

    /// Are there related keys in other keystores, as far as that is known?
    pub(in crate::keystore) fn are_several(&self) -> bool {
        !self.is_primary() || !self.replicas.is_empty() || !self.hand_overs.is_empty()
    }

    /// What the key is, in AWS's words.
    pub(in crate::keystore) fn key_type(&self) -> &'static str {
        if self.is_primary() { "PRIMARY" } else { "REPLICA" }
    }

    /// Notes a replica, once.
    pub(in crate::keystore) fn add(&mut self, region: &str) {
        if !self.replicas.iter().any(|known| known == region) {
            self.replicas.push(region.to_owned());
            self.replicas.sort();
        }
    }

    /// As DescribeKey shows it.
    pub(in crate::keystore) fn configuration(&self, key: KeyId) -> MultiRegionConfiguration {
        let related = |region: &String| RelatedKey {
            arn: format!("arn:aws:kms:{region}:{}:key/{key}", caller::ACCOUNT),
            region: region.clone(),
        };
        MultiRegionConfiguration {
            multi_region_key_type: self.key_type(),
            primary_key: related(&self.primary.region),
            replica_keys: self.replicas.iter().map(related).collect(),
        }
    }
}

/// The related keys of a multi-Region key. Serialises with AWS's member names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct MultiRegionConfiguration {
    /// PRIMARY or REPLICA: what the key that was asked for is.
    pub multi_region_key_type: &'static str,
    /// The primary key.
    pub primary_key: RelatedKey,
    /// The replicas.
    pub replica_keys: Vec<RelatedKey>,
}

/// One of the related keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RelatedKey {
    /// Its ARN.
    pub arn: String,
    /// Its Region.
    pub region: String,
}

/// A keystore, by Region and identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::keystore) struct Holder {
    pub(in crate::keystore) region: String,
    pub(in crate::keystore) identity: String,
}

/// The role went from one keystore to another. Signed by the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::keystore) struct HandOver {
    from: Holder,
    to: Holder,
    #[serde(with = "base64")]
    signature: Vec<u8>,
}

impl Holder {
    /// Who made this transfer key.
    pub(in crate::keystore) fn of(key: &TransferKey) -> Self {
        Self { region: key.region.clone(), identity: key.identity.clone() }
    }

    /// Who sealed this transfer.
    pub(in crate::keystore) fn sender(transfer: &Transfer) -> Self {
        Self { region: transfer.from.clone(), identity: transfer.identity.clone() }
    }
}

impl HandOver {
    /// Does it give the role from `holder` to somebody, as the one with this number?
    fn follows(&self, key: KeyId, term: usize, holder: &Holder) -> bool {
        let signed = signed(key, term, &self.from, &self.to);
        self.from == *holder && verify(&holder.identity, &signed, &self.signature).is_some()
    }
}

impl Regions {
    /// Gives the role to another of the Regions.
    pub(in crate::keystore) fn hand_over(&mut self, key: KeyId, to: Holder, signing: &SigningKey) {
        let from = std::mem::replace(&mut self.primary, to.clone());
        let signed = signed(key, self.hand_overs.len() + 1, &from, &to);
        let signature = signing.sign(&signed).to_vec();
        self.replicas.retain(|region| *region != to.region);
        self.add(&from.region);
        self.hand_overs.push(HandOver { from, to, signature });
    }

    /// Was it this keystore that gave the role to `to`, as the last hand-over that it knows?
    pub(in crate::keystore) fn gave(&self, own_identity: &str, to: &Holder) -> bool {
        let last = self.hand_overs.last();
        last.is_some_and(|last| last.from.identity == own_identity && last.to == *to)
    }

    /// Takes over from a transfer, which `theirs` came with, who has the role.
    /// Errors: `Superseded`, `NotPrimary`.
    pub(in crate::keystore) fn follow(
        &mut self,
        transfer: &Transfer,
        theirs: &Self,
        here: &Holder,
    ) -> Result<(), ReplicaError> {
        let key = transfer.key_id;
        let superseded = || ReplicaError::Superseded { key, primary: self.primary.region.clone() };
        let stranger = || ReplicaError::NotPrimary {
            key,
            from: transfer.from.clone(),
            primary: self.primary.region.clone(),
        };
        let known = self.hand_overs.len();
        let news = theirs.hand_overs.get(known..).ok_or_else(superseded)?;
        let mut holder = &self.primary;
        for (term, step) in (known + 1..).zip(news) {
            if !step.follows(key, term, holder) {
                return Err(stranger());
            }
            holder = &step.to;
        }
        let sender = Holder::sender(transfer);
        match (transfer.kind, news.last()) {
            (TransferKind::Primary, None) => return Err(superseded()),
            (TransferKind::Primary, Some(last)) if last.from == sender && last.to == *here => {}
            (TransferKind::Sync, _) if *holder == sender => {}
            _ => return Err(stranger()),
        }
        self.primary = holder.clone();
        self.hand_overs.extend_from_slice(news);
        Ok(())
    }
}

fn signed(key: KeyId, term: usize, from: &Holder, to: &Holder) -> Vec<u8> {
    let term = u64::try_from(term).expect("no chain has 2^64 links").to_be_bytes();
    encode_parts(&[
        b"kmsfs/1/hand-over",
        key.as_bytes(),
        &term,
        from.region.as_bytes(),
        from.identity.as_bytes(),
        to.region.as_bytes(),
        to.identity.as_bytes(),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Secret;
    use crate::crypto::hybrid::PrivateKey;
    use crate::id::MaterialId;

    const KEY: KeyId = KeyId::from_bytes([1; 16]);

    fn signing(seed: u8) -> SigningKey {
        SigningKey::from_seed(&Secret::filled(|bytes| bytes.fill(seed)))
    }

    fn holder(region: &str, seed: u8) -> Holder {
        Holder { region: region.to_owned(), identity: signing(seed).public().to_pem() }
    }

    /// The key of Region a as Region b has it.
    fn replica() -> Regions {
        let made = holder("a", 1);
        let mut regions = Regions::primary_in(made.region, made.identity);
        regions.own = "b".to_owned();
        regions.add("b");
        regions
    }

    fn transfer(kind: TransferKind, from: &str, seed: u8, to: &str) -> Transfer {
        let private = PrivateKey::generate().unwrap();
        let id = MaterialId::from_bytes([3; 16]);
        let to = TransferKey::sign(id, to.to_owned(), &private, &signing(9)).unwrap();
        Transfer::seal(kind, KEY, from.to_owned(), &to, b"", &signing(seed)).unwrap()
    }

    /// Errors: the exception that refuses it.
    fn follow(
        ours: &mut Regions,
        (kind, from, seed): (TransferKind, &str, u8),
        theirs: &Regions,
        here: &Holder,
    ) -> Result<(), &'static str> {
        let transfer = transfer(kind, from, seed, &here.region);
        ours.follow(&transfer, theirs, here).map_err(|error| error.aws_name())
    }

    /// The transfer itself said who has the role: a hostile replica could write that it was given
    /// the role, or borrow the name of the primary key's Region, and overwrite the primary key.
    #[test]
    fn regression_a_replica_that_says_it_was_given_the_role_is_refused() {
        let denied = Err("AccessDeniedException");
        let (a, b) = (holder("a", 1), holder("b", 2));
        let mut primary = Regions { own: "a".to_owned(), ..replica() };
        let mut forged = replica();
        forged.hand_over(KEY, b.clone(), &signing(2));
        let sync = (TransferKind::Sync, "b", 2);
        assert_eq!(follow(&mut primary, sync, &forged, &a), denied, "signed by who takes it");
        forged.hand_over(KEY, a.clone(), &signing(2));
        let given = (TransferKind::Primary, "b", 2);
        assert_eq!(follow(&mut primary, given, &forged, &a), denied, "and given back");
        let claimed = Regions::primary_in(b.region.clone(), b.identity.clone());
        assert_eq!(follow(&mut primary, sync, &claimed, &a), denied, "as if made there");
        let borrowed = (TransferKind::Sync, "a", 2);
        assert_eq!(follow(&mut replica(), borrowed, &replica(), &b), denied, "as Region a");
        assert_eq!(primary, Regions { own: "a".to_owned(), ..replica() });
    }

    #[test]
    fn a_hand_over_is_of_one_key_one_term_and_one_keystore() {
        let denied = Err("AccessDeniedException");
        let b = holder("b", 2);
        let given = (TransferKind::Primary, "a", 1);
        let mut theirs = replica();
        theirs.hand_over(KEY, b.clone(), &signing(1));
        assert_eq!(follow(&mut replica(), given, &theirs, &holder("b", 3)), denied);
        assert_eq!(follow(&mut replica(), given, &theirs, &holder("c", 2)), denied);
        let mut other_key = replica();
        other_key.hand_over(KeyId::from_bytes([2; 16]), b.clone(), &signing(1));
        assert_eq!(follow(&mut replica(), given, &other_key, &b), denied);

        let mut ours = replica();
        assert_eq!(follow(&mut ours, given, &theirs, &b), Ok(()));
        assert!(ours.is_primary());
        let superseded = Err("KMSInvalidStateException");
        assert_eq!(follow(&mut ours, given, &theirs, &b), superseded, "received already");
        ours.hand_over(KEY, holder("a", 1), &signing(2));
        // The first hand-over once more, as if it were the third.
        let mut replayed = ours.clone();
        replayed.hand_overs.push(theirs.hand_overs[0].clone());
        assert_eq!(follow(&mut ours, given, &replayed, &b), denied);
        assert_eq!(follow(&mut ours, given, &theirs, &b), superseded);
    }
}
