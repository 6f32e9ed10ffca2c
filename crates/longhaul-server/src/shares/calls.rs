//! From calls to what they cost.

use std::any::Any;

use longhaul_core::Error;

use crate::access::{Class, Decision, Oversight};
use crate::shares::{Kind, Payer, Shares};

impl Oversight for Shares {
    fn records(&self) -> bool {
        false
    }

    fn decided(&self, decision: &Decision) -> Result<Option<Box<dyn Any + Send + Sync>>, Error> {
        let (kind, held) = match decision.class {
            Class::Cancel => (Kind::Cancel, false),
            Class::Change | Class::Read => (Kind::Call, false),
            Class::Wait | Class::Watch => (Kind::Call, true),
            // Leases that were given out depend on them.
            Class::Work => return Ok(None),
        };
        if !decision.granted {
            return Ok(None);
        }
        let actor = decision.identity.actor();
        let payer = match decision.from.address {
            _ if !decision.identity.is_anonymous() => Payer::Principal(&actor),
            Some(address) => Payer::Peer(address),
            None => return Ok(None),
        };
        if !self.counts(payer) {
            return Ok(None);
        }
        let place = self.take(payer, &decision.service, kind, held, decision.at)?;
        Ok(held.then(|| Box::new(place) as Box<dyn Any + Send + Sync>))
    }

    fn answered(&self, _decision: &Decision, _answer: Result<(), &Error>) {}
}
