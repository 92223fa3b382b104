//! Credentials in, principal and permissions out.
//!
//! Holds the admin key only (API keys and sessions join it here). Comparison takes the same time whatever differs.
//! It never prints, logs or returns a credential.

use crate::command::{ErrorCode, Failure};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Read entities and listings.
    Read,
    /// Write entities and templates.
    Write,
    /// Everything, and operations on the server itself.
    Admin,
}

impl Permission {
    /// The name in messages and on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Permission::Read => "read",
            Permission::Write => "write",
            Permission::Admin => "admin",
        }
    }
}

/// Who asks, and what they may do. Valid while its epoch is the authenticator's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// A name for logs; never a credential.
    pub name: String,
    read: bool,
    write: bool,
    admin: bool,
}

impl Principal {
    /// The holder of the admin key.
    pub fn admin() -> Self {
        Self { name: "admin".into(), read: true, write: true, admin: true }
    }

    /// Somebody without a credential: may use only what needs no permission.
    pub fn anonymous() -> Self {
        Self { name: "anonymous".into(), read: false, write: false, admin: false }
    }

    /// Whether it holds the permission; admin includes all.
    pub fn may(&self, permission: Permission) -> bool {
        self.admin
            || match permission {
                Permission::Read => self.read,
                Permission::Write => self.write,
                Permission::Admin => false,
            }
    }

    /// Refuses by name what it may not do.
    pub fn require(&self, permission: Permission) -> Result<(), Failure> {
        if self.may(permission) {
            return Ok(());
        }
        let name = permission.name();
        Err(Failure::new(ErrorCode::Forbidden, format!("this credential lacks the permission '{name}'")))
    }

    /// Names of the permissions it holds.
    pub fn permissions(&self) -> Vec<&'static str> {
        [Permission::Read, Permission::Write, Permission::Admin]
            .into_iter()
            .filter(|permission| self.may(*permission))
            .map(Permission::name)
            .collect()
    }
}

/// Judges credentials. Immutable; shared by all shards.
pub struct Authenticator {
    admin_key_digest: [u8; 32],
}

impl Authenticator {
    /// Knows the admin key by its digest only.
    pub fn new(admin_key: &SecretString) -> Self {
        Self { admin_key_digest: Sha256::digest(admin_key.expose_secret().as_bytes()).into() }
    }

    /// The principal of a bearer credential. Digests are compared, so neither content nor length shows in the time.
    pub fn authenticate(&self, credential: Option<&[u8]>) -> Result<Principal, Failure> {
        let Some(credential) = credential else {
            return Err(Failure::new(
                ErrorCode::Unauthenticated,
                "a credential is needed: send 'Authorization: Bearer <admin key>' (HTTP) or --key (CLI)",
            ));
        };
        let digest: [u8; 32] = Sha256::digest(credential).into();
        if bool::from(digest.ct_eq(&self.admin_key_digest)) {
            return Ok(Principal::admin());
        }
        Err(Failure::new(ErrorCode::Unauthenticated, "the credential is not known here: check the admin key"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_admin_key_and_nothing_else() {
        let authenticator = Authenticator::new(&SecretString::from("correct horse"));
        assert_eq!(authenticator.authenticate(Some(b"correct horse")).unwrap(), Principal::admin());
        for wrong in [None, Some(&b""[..]), Some(b"correct hors"), Some(b"correct horse ")] {
            assert_eq!(authenticator.authenticate(wrong).unwrap_err().code, ErrorCode::Unauthenticated);
        }
    }
}
