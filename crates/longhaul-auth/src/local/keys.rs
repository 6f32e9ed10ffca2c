//! RSA keys that sign: made, read, and never shown.

use std::fmt;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use longhaul_core::{Error, Reason};
use serde::Serialize;

use crate::secret::Secret;

/// A private key of 2,048 bits with the name that its signatures carry.
pub struct SigningKey {
    key: EncodingKey,
    pem: Secret,
    public: Jwk,
    id: String,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// A new one. Takes tenths of a second.
    pub fn generate() -> Result<Self, Error> {
        let pair = KeyPair::generate(KeySize::Rsa2048).map_err(unmade)?;
        let der = pair.as_der().map_err(unmade)?;
        let text = STANDARD.encode(der.as_ref());
        let lines: Vec<&str> = text
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).expect("base64 is ASCII"))
            .collect();
        let pem = lines.join("\n");
        Self::from_pem(&Secret::new(format!(
            "-----BEGIN PRIVATE KEY-----\n{pem}\n-----END PRIVATE KEY-----\n"
        )))
    }

    /// Reads PKCS#8 PEM. Fails with `CONFIG_INVALID`, without a word of the key.
    pub fn from_pem(pem: &Secret) -> Result<Self, Error> {
        let wrong = |_| Error::new(Reason::ConfigInvalid, "no RSA key in PKCS#8 PEM");
        let key = EncodingKey::from_rsa_pem(pem.expose().as_bytes()).map_err(wrong)?;
        let mut public = Jwk::from_encoding_key(&key, Algorithm::RS256).map_err(wrong)?;
        let id = public.thumbprint(ThumbprintHash::SHA256).map_err(wrong)?;
        public.common.key_id = Some(id.clone());
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        Ok(Self { key, pem: pem.clone(), public, id })
    }

    /// The same key by another name: the one that whoever made it has registered it under.
    #[must_use]
    pub fn named(mut self, id: &str) -> Self {
        self.public.common.key_id = Some(id.to_owned());
        id.clone_into(&mut self.id);
        self
    }

    /// Its name: the thumbprint (RFC 7638), unless it was given another.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The half that checks.
    #[must_use]
    pub fn public(&self) -> &Jwk {
        &self.public
    }

    /// The key as text, for its file.
    #[must_use]
    pub fn pem(&self) -> &Secret {
        &self.pem
    }

    /// Forty digits that follow from the key.
    pub(super) fn digits(&self) -> String {
        self.id.bytes().take(20).map(|byte| format!("{:02}", byte % 100)).collect()
    }

    /// A token that says `claims`.
    pub fn sign(&self, claims: &impl Serialize) -> Result<Secret, Error> {
        let mut header = Header::new(Algorithm::RS256);
        header.kid = Some(self.id.clone());
        match jsonwebtoken::encode(&header, claims, &self.key) {
            Ok(token) => Ok(Secret::new(token)),
            Err(error) => Err(Error::new(Reason::Internal, "a token could not be signed")
                .caused_by(error.to_string())),
        }
    }
}

fn unmade(_: aws_lc_rs::error::Unspecified) -> Error {
    Error::new(Reason::Internal, "no RSA key could be made")
}
