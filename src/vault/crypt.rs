//! AES-256-GCM over the vault's three secrets: master keys wrap data keys, data keys seal plaintexts of keys (HASH-6).
//!
//! The additional data of each seal name the place it belongs to, so that what was moved to another row does not open. A
//! nonce is 12 random bytes: by NIST SP 800-38D, section 8.3, one key may then seal 2^32 texts, and a data key that has
//! its workspace's recoverable keys alone does not come near.

use std::fmt;

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit};
use keyward_storage::ids::{DataKeyId, KeyId, WorkspaceId};
use keyward_storage::records::vault::{Nonce, WRAPPED_BYTES};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::outside::Entropy;

/// Bytes of a master key and of a data key.
pub const KEY_BYTES: usize = 32;

/// A master key or a data key. Gone from memory when it is dropped; never printed.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SymmetricKey(Box<[u8; KEY_BYTES]>);

impl SymmetricKey {
    /// A new one.
    pub fn draw(entropy: &Entropy) -> SymmetricKey {
        let mut key = SymmetricKey(Box::new([0; KEY_BYTES]));
        entropy.fill(&mut *key.0);
        key
    }

    /// Takes its bytes; `None` where these are not [`KEY_BYTES`].
    pub fn from_bytes(bytes: &[u8]) -> Option<SymmetricKey> {
        let mut key = SymmetricKey(Box::new([0; KEY_BYTES]));
        (bytes.len() == KEY_BYTES).then(|| key.0.copy_from_slice(bytes))?;
        Some(key)
    }

    /// The bytes themselves, for whoever wraps, encodes or compares them.
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl fmt::Debug for SymmetricKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
    }
}

/// What was sealed does not open: it was changed, moved, or sealed under another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAuthentic;

/// A key, prepared. Its schedule is wiped when it is dropped (feature `zeroize` of the cipher's crate).
pub struct Cipher(Box<Aes256Gcm>);

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
    }
}

impl Cipher {
    /// Prepares a key.
    pub fn new(key: &SymmetricKey) -> Cipher {
        Cipher(Box::new(Aes256Gcm::new(key.expose().into())))
    }

    /// Seals a text; it becomes 16 bytes longer.
    fn seal(&self, nonce: &Nonce, place: &[u8], text: &[u8]) -> Vec<u8> {
        let payload = Payload { msg: text, aad: place };
        self.0.encrypt(nonce.into(), payload).expect("texts are far shorter than the 64 GiB that can be sealed")
    }

    /// Opens what was sealed at this very place.
    fn open(&self, nonce: &Nonce, place: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotAuthentic> {
        let payload = Payload { msg: sealed, aad: place };
        self.0.decrypt(nonce.into(), payload).map(Zeroizing::new).map_err(|_| NotAuthentic)
    }

    /// Wraps a data key, which belongs to this workspace and has this id.
    pub fn wrap(
        &self,
        nonce: &Nonce,
        (workspace, id): (WorkspaceId, DataKeyId),
        key: &SymmetricKey,
    ) -> [u8; WRAPPED_BYTES] {
        let wrapped = self.seal(nonce, &place_of_data_key(workspace, id), key.expose());
        wrapped.try_into().expect("a key and its tag have as many bytes")
    }

    /// Unwraps it.
    ///
    /// # Errors
    /// [`NotAuthentic`] where it is not what [`Cipher::wrap`] made at this place.
    pub fn unwrap(
        &self,
        nonce: &Nonce,
        (workspace, id): (WorkspaceId, DataKeyId),
        wrapped: &[u8],
    ) -> Result<SymmetricKey, NotAuthentic> {
        let bytes = self.open(nonce, &place_of_data_key(workspace, id), wrapped)?;
        SymmetricKey::from_bytes(&bytes).ok_or(NotAuthentic)
    }

    /// Seals the plaintext of a key. `place` is its workspace, the data key that this is, and its id.
    pub fn seal_copy(&self, nonce: &Nonce, place: (WorkspaceId, DataKeyId, KeyId), plaintext: &str) -> Vec<u8> {
        self.seal(nonce, &place_of_copy(place), plaintext.as_bytes())
    }

    /// Opens it.
    ///
    /// # Errors
    /// [`NotAuthentic`] where it is not what [`Cipher::seal_copy`] made at this place.
    pub fn open_copy(
        &self,
        nonce: &Nonce,
        place: (WorkspaceId, DataKeyId, KeyId),
        sealed: &[u8],
    ) -> Result<Zeroizing<String>, NotAuthentic> {
        let bytes = self.open(nonce, &place_of_copy(place), sealed)?;
        std::str::from_utf8(&bytes).map(|text| Zeroizing::new(text.to_owned())).map_err(|_| NotAuthentic)
    }
}

/// A nonce, drawn.
pub fn draw_nonce(entropy: &Entropy) -> Nonce {
    let mut nonce = Nonce::default();
    entropy.fill(&mut nonce);
    nonce
}

fn place_of_data_key(workspace: WorkspaceId, id: DataKeyId) -> Vec<u8> {
    [b"keyward data key 1\0".as_slice(), workspace.as_bytes(), id.as_bytes()].concat()
}

fn place_of_copy((workspace, data_key, key): (WorkspaceId, DataKeyId, KeyId)) -> Vec<u8> {
    [b"keyward key copy 1\0".as_slice(), workspace.as_bytes(), data_key.as_bytes(), key.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use keyward_storage::ids::IdText;

    use super::*;

    fn id(sign: u8) -> IdText {
        IdText::from_bytes([sign; 16]).expect("alphanumeric")
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// HASH-6: frozen, since copies on users' disks are sealed like this.
    #[test]
    fn seals_are_frozen() {
        let cipher = Cipher::new(&SymmetricKey::from_bytes(&[7; 32]).unwrap());
        let (workspace, data_key, key) = (WorkspaceId(id(b'w')), DataKeyId(id(b'd')), KeyId(id(b'k')));
        let inner = SymmetricKey::from_bytes(&[9; 32]).unwrap();
        let wrapped = cipher.wrap(&[1; 12], (workspace, data_key), &inner);
        let sealed = cipher.seal_copy(&[2; 12], (workspace, data_key, key), "prod_12drXXUifSrRnXLGbXg8E");
        assert_eq!(hex(&wrapped), WRAPPED);
        assert_eq!(hex(&sealed), SEALED);
        let opened = cipher.unwrap(&[1; 12], (workspace, data_key), &wrapped).unwrap();
        assert_eq!(opened.expose(), inner.expose());
        assert_eq!(
            cipher.open_copy(&[2; 12], (workspace, data_key, key), &sealed).unwrap().as_str(),
            "prod_12drXXUifSrRnXLGbXg8E"
        );
    }

    /// The seals of [`seals_are_frozen`], as another implementation of AES-256-GCM (Python's `cryptography`) makes them.
    const WRAPPED: &str =
        "7fe880be99b6e507d8ddd528793e7938a1f21dfd119e321a51384a6b6fbd3fb2266b7f286de6d99221fe790aaade09ea";
    const SEALED: &str = "6ac6866304da87436808dee28be49f08987d30b637d472d3fe4f594dbefd3bd629ff251b7158f4c5b87c";

    /// HASH-6: what was moved to another workspace, data key or key does not open, nor does what was changed in any byte.
    #[test]
    fn a_copy_opens_in_its_own_place_only() {
        let cipher = Cipher::new(&SymmetricKey::from_bytes(&[7; 32]).unwrap());
        let own = (WorkspaceId(id(b'w')), DataKeyId(id(b'd')), KeyId(id(b'k')));
        let sealed = cipher.seal_copy(&[2; 12], own, "a plaintext");
        for elsewhere in [
            (WorkspaceId(id(b'x')), own.1, own.2),
            (own.0, DataKeyId(id(b'x')), own.2),
            (own.0, own.1, KeyId(id(b'x'))),
        ] {
            assert_eq!(cipher.open_copy(&[2; 12], elsewhere, &sealed), Err(NotAuthentic));
        }
        assert_eq!(cipher.open_copy(&[3; 12], own, &sealed), Err(NotAuthentic));
        let other = Cipher::new(&SymmetricKey::from_bytes(&[8; 32]).unwrap());
        assert_eq!(other.open_copy(&[2; 12], own, &sealed), Err(NotAuthentic));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(cipher.open_copy(&[2; 12], own, &changed), Err(NotAuthentic));
            assert_eq!(cipher.open_copy(&[2; 12], own, &sealed[..at]), Err(NotAuthentic));
        }
    }

    #[test]
    fn keys_are_never_printed() {
        let key = SymmetricKey::from_bytes(&[0x55; 32]).unwrap();
        assert_eq!(format!("{key:?} {:?}", Cipher::new(&key)), "[REDACTED] [REDACTED]");
        assert!(SymmetricKey::from_bytes(&[0; 31]).is_none() && SymmetricKey::from_bytes(&[0; 33]).is_none());
    }
}
