//! Accounts that sign tokens for themselves: those of a local identity, and those registered in files.

use longhaul_auth::local::LocalIdentity;
use longhaul_auth::token::{Accounts, KeySet};

use super::{Sources, read};

impl Sources {
    /// Takes the local identity if it has changed: the server's own key, and the accounts with theirs.
    pub(super) fn look_at_identity(&self) {
        let (Some(file), Some(current)) = (&self.config.local, &self.local) else { return };
        let taken = read(file).and_then(|text| {
            if self.seen.lock().local.as_ref() == Some(&text) {
                return Ok(());
            }
            let shown = file.display().to_string();
            let identity = LocalIdentity::parse(&text, &shown).map_err(|error| error.message)?;
            let wrong = |why: String| format!("{shown}: {why}");
            let own = serde_json::json!(identity.issued_by()).to_string();
            let keys = KeySet::parse(&own).map_err(wrong)?;
            let accounts = of_identity(&identity).map_err(wrong)?;
            // The server's own tokens come after those of all issuers.
            self.verifier.set_keys(self.config.issuers.len(), keys);
            let count = identity.accounts().len();
            current.store(std::sync::Arc::new(identity));
            let mut seen = self.seen.lock();
            (seen.own, seen.local) = (accounts, Some(text));
            self.verifier.set_accounts(seen.own.clone().and(seen.registered.clone()));
            tracing::info!(file = %shown, accounts = count, "auth.local was read");
            Ok(())
        });
        self.note("auth.local", taken);
    }

    /// Takes the registered accounts if a file has changed.
    pub(super) fn look_at_accounts(&self) {
        let files = &self.config.service_accounts;
        let texts: Result<Vec<_>, _> = files.iter().map(|file| read(file)).collect();
        let taken = texts.and_then(|texts| {
            if self.seen.lock().accounts.as_ref() == Some(&texts) {
                return Ok(());
            }
            let mut all = Accounts::default();
            for (text, file) in texts.iter().zip(files) {
                let accounts = Accounts::parse(text);
                all = all.and(accounts.map_err(|why| format!("{}: {why}", file.display()))?);
            }
            let mut seen = self.seen.lock();
            (seen.registered, seen.accounts) = (all, Some(texts));
            self.verifier.set_accounts(seen.own.clone().and(seen.registered.clone()));
            tracing::info!("the files of auth.service_accounts were read");
            Ok(())
        });
        self.note("auth.service_accounts", taken);
    }
}

fn of_identity(identity: &LocalIdentity) -> Result<Accounts, String> {
    let accounts = identity.accounts().iter();
    let accounts: Vec<_> = accounts
        .map(|account| serde_json::json!({"email": account.client_email, "keys": account.keys}))
        .collect();
    Accounts::parse(&serde_json::json!({ "accounts": accounts }).to_string())
}
