//! How a server finds out who calls.

use std::fmt;
use std::str::FromStr;

/// How a server finds out who calls. A server is told; only `longhaul dev` has a default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Nobody is asked; everybody may do everything. On loopback only.
    Off,
    /// Tokens that this server issues itself, for the accounts that were made with it.
    Local,
    /// Tokens of an issuer elsewhere, checked with its public keys.
    Jwt,
    /// Client certificates.
    Mtls,
    /// Client certificates on every connection; a token, where one comes along, says who calls.
    JwtAndMtls,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 5] = [Self::Off, Self::Local, Self::Jwt, Self::Mtls, Self::JwtAndMtls];

    /// As the configuration writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Local => "local",
            Self::Jwt => "jwt",
            Self::Mtls => "mtls",
            Self::JwtAndMtls => "jwt+mtls",
        }
    }

    /// Whether callers may say who they are by a token.
    #[must_use]
    pub const fn takes_tokens(self) -> bool {
        match self {
            Self::Local | Self::Jwt | Self::JwtAndMtls => true,
            Self::Off | Self::Mtls => false,
        }
    }

    /// Whether every connection needs a client certificate.
    #[must_use]
    pub const fn needs_certificates(self) -> bool {
        match self {
            Self::Mtls | Self::JwtAndMtls => true,
            Self::Off | Self::Local | Self::Jwt => false,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = if text == "mtls+jwt" { "jwt+mtls" } else { text };
        Self::ALL.into_iter().find(|mode| mode.name() == text).ok_or_else(|| {
            format!("{text:?} is no mode of auth; write \"off\", \"local\", \"jwt\", \"mtls\" or \"jwt+mtls\"")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mode_is_read_as_it_is_written() {
        for mode in Mode::ALL {
            assert_eq!(mode.name().parse(), Ok(mode));
        }
        assert_eq!("mtls+jwt".parse(), Ok(Mode::JwtAndMtls));
        for wrong in ["", "Off", "none", "oidc"] {
            assert!(wrong.parse::<Mode>().is_err(), "{wrong}");
        }
    }
}
