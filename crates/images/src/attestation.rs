//! Statements about images (in-toto), as builders leave them beside an image in its index.

use oci::{Descriptor, Platform};
use serde_json::Value;

use crate::index::{Child, ChildKind, Document};
use crate::state::Target;
use crate::{Catalog, Error};

/// Where a layer's descriptor says what its statement is about.
const PREDICATE: &str = "in-toto.io/predicate-type";
/// Largest statement that is read into memory, in bytes. A list of what is in a large image has some megabytes.
const STATEMENT_BYTES_MAX: u64 = 64 << 20;

/// Which statements are wanted.
#[derive(Debug, Clone, Default)]
pub struct StatementFilter {
    /// About the image for this platform, and not for this host.
    pub platform: Option<Platform>,
    /// URIs; none means all.
    pub predicates: Vec<String>,
    /// With what they say.
    pub with_body: bool,
}

/// One statement about an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    pub descriptor: Descriptor,
    pub predicate: String,
    pub body: Option<Value>,
}

impl Catalog<'_> {
    /// The statements about an image that are here.
    pub fn statements(self, name: &str, filter: &StatementFilter) -> Result<Vec<Statement>, Error> {
        let found = self.0.find(name, filter.platform.as_ref())?;
        let Target::Index(digest) = &found.target else { return Ok(Vec::new()) };
        let Some(index) = self.0.index(digest) else { return Ok(Vec::new()) };
        let about = index.children.iter().find(|child| child.image() == Some(&found.image.id));
        let Some(about) = about.map(|child| child.descriptor.digest.to_string()) else {
            return Ok(Vec::new());
        };
        let is_about = |child: &&Child| child.kind() == ChildKind::Attestation(about.clone());
        let mut statements = Vec::new();
        for child in index.children.iter().filter(is_about) {
            let Document::Other { blobs } = &child.document else { continue };
            for descriptor in blobs {
                let Some(predicate) = descriptor.annotations.get(PREDICATE) else { continue };
                if !filter.predicates.is_empty() && !filter.predicates.contains(predicate) {
                    continue;
                }
                let body = filter.with_body.then(|| self.statement(descriptor)).transpose()?;
                statements.push(Statement {
                    descriptor: descriptor.clone(),
                    predicate: predicate.clone(),
                    body,
                });
            }
        }
        Ok(statements)
    }

    fn statement(self, descriptor: &Descriptor) -> Result<Value, Error> {
        let bytes = self.0.content().read(&descriptor.digest, STATEMENT_BYTES_MAX)?;
        serde_json::from_slice(&bytes)
            .map_err(|source| Error::Document { what: "a statement about the image".into(), source })
    }
}
