//! The conformance suite on the embedded engine, once as it is shipped and once without a cache.

mod shipped {
    use std::path::Path;
    use std::sync::Arc;

    use crate::conformance::conformance;
    use crate::embedded::{Embedded, Options};
    use crate::{Listener, Store};

    fn open(folder: &Path, listener: Arc<dyn Listener>) -> Arc<dyn Store> {
        Arc::new(Embedded::open(&Options::new(folder), listener).unwrap())
    }

    conformance!(open);
}

mod uncached {
    use std::path::Path;
    use std::sync::Arc;

    use crate::conformance::conformance;
    use crate::embedded::{Embedded, Options};
    use crate::{Listener, Store};

    fn open(folder: &Path, listener: Arc<dyn Listener>) -> Arc<dyn Store> {
        let mut options = Options::new(folder);
        // Every read goes to the file, every commit is small, and the log begins again all the time.
        options.cache_bytes = 0;
        options.batch_max = 3;
        options.log_bytes = 0;
        Arc::new(Embedded::open(&options, listener).unwrap())
    }

    conformance!(open);
}
