//! Keys on a token: made there, found by id, destroyed there, never read.

use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};

use super::error::Fault;
use super::session::{Line, Token, TokenKeyId};
use super::{Serial, TokenError};
use crate::crypto::random;

impl Token {
    /// Makes an AES-256 key that can encrypt and decrypt on the token and can never be read. Tells on
    /// which token.
    /// Errors: `Unsupported` if the token would not keep it that way; those of a login.
    pub(in crate::keystore) fn make_key(
        &self,
        id: &TokenKeyId,
        label: &str,
    ) -> Result<Option<Serial>, TokenError> {
        self.run(|line| {
            if find(self, line, id)?.is_some() {
                // Made by an earlier try whose answer was lost.
                return Ok(line.serial.clone());
            }
            let template = template(id, label);
            let made = line.session().generate_key(&Mechanism::AesKeyGen, &template);
            let key = self.call(made)?;
            if self.is_kept_secret(line, key)? {
                line.keys.insert(*id, key);
                return Ok(line.serial.clone());
            }
            self.call(line.session().destroy_object(key))?;
            let what = "its keys can be read".to_owned();
            Err(Fault::Final(TokenError::Unsupported(self.token_ref().clone(), what)))
        })
    }

    /// Destroys a key. One that is not there is no error: it is gone, if this is the token that it was
    /// made on. `made_on` is not known of keys of earlier versions.
    /// Errors: `Another`; those of a login.
    pub(in crate::keystore) fn destroy_key(
        &self,
        id: &TokenKeyId,
        made_on: Option<&Serial>,
    ) -> Result<(), TokenError> {
        self.run(|line| {
            line.keys.remove(id);
            match (find(self, line, id)?, made_on) {
                (Some(key), _) => self.call(line.session().destroy_object(key)),
                (None, Some(serial)) if line.serial.as_ref() != Some(serial) => {
                    let token_ref = self.token_ref().clone();
                    Err(Fault::Lost(TokenError::Another(token_ref, serial.0.clone())))
                }
                (None, _) => self.prove_presence(line),
            }
        })
    }

    /// A token that went away shows no objects, as if they were destroyed: it cannot make any
    /// either.
    fn prove_presence(&self, line: &Line) -> Result<(), Fault> {
        let gone = |why| TokenError::Unavailable(self.token_ref().clone(), why);
        let id = random::id16().map_err(|error| Fault::Final(gone(error.to_string())))?;
        let template = template(&id, "kmsfs probe");
        let made = line.session().generate_key(&Mechanism::AesKeyGen, &template);
        let made = self.call(made).map_err(|fault| match fault {
            Fault::Refused(why) => Fault::Lost(gone(why)),
            other => other,
        })?;
        self.call(line.session().destroy_object(made))
    }

    /// Is the key on the token?
    #[cfg(test)]
    pub(in crate::keystore) fn has_key(&self, id: &TokenKeyId) -> Result<bool, TokenError> {
        self.run(|line| Ok(find(self, line, id)?.is_some()))
    }

    /// The key, as this session knows it.
    pub(super) fn key(&self, line: &mut Line, id: &TokenKeyId) -> Result<ObjectHandle, Fault> {
        if let Some(key) = line.keys.get(id) {
            return Ok(*key);
        }
        // A token that is half gone may show no objects: worth another look.
        let missing = || Fault::Lost(TokenError::KeyMissing(self.token_ref().clone()));
        let key = find(self, line, id)?.ok_or_else(missing)?;
        line.keys.insert(*id, key);
        Ok(key)
    }

    fn is_kept_secret(&self, line: &Line, key: ObjectHandle) -> Result<bool, Fault> {
        let asked = [AttributeType::AlwaysSensitive, AttributeType::NeverExtractable];
        let told = self.call(line.session().get_attributes(key, &asked))?;
        Ok(told.contains(&Attribute::AlwaysSensitive(true))
            && told.contains(&Attribute::NeverExtractable(true)))
    }
}

fn find(token: &Token, line: &Line, id: &TokenKeyId) -> Result<Option<ObjectHandle>, Fault> {
    let wanted = [Attribute::Class(ObjectClass::SECRET_KEY), Attribute::Id(id.to_vec())];
    let found = token.call(line.session().find_objects(&wanted))?;
    Ok(found.first().copied())
}

fn template(id: &TokenKeyId, label: &str) -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::ValueLen(32.into()),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
        Attribute::Wrap(false),
        Attribute::Unwrap(false),
        Attribute::Id(id.to_vec()),
        Attribute::Label(label.as_bytes().to_vec()),
    ]
}
