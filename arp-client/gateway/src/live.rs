//! The configuration as it is now: an edit counts from the next request.

use crate::files::balance::{self, Balance};
use crate::files::routes::{self, Routes};
use crate::files::upstreams::Upstreams;
use crate::files::watched::Watched;
use crate::home::Home;
use crate::service::Service;
use crate::settings::Settings;
use std::sync::Arc;

/// All files of a home.
#[derive(Debug)]
pub struct Live {
    home: Home,
    upstreams: [Watched<Upstreams>; 3],
    balance: Watched<Balance>,
    routes: Watched<Routes>,
    settings: Watched<Settings>,
}

/// What a service goes by during one request.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Who can be asked.
    pub upstreams: Arc<Upstreams>,
    /// How they are shared, for all services.
    balance: Arc<Balance>,
    /// Models, for all services.
    routes: Arc<Routes>,
    /// All else.
    pub settings: Arc<Settings>,
    service: Service,
}

impl Snapshot {
    /// How the upstreams are shared.
    #[must_use]
    pub fn balance(&self) -> &balance::Rules {
        self.balance.of(self.service)
    }

    /// Which models go where.
    #[must_use]
    pub fn routes(&self) -> &routes::Rules {
        self.routes.of(self.service)
    }
}

impl Live {
    /// The files of `home`.
    #[must_use]
    pub fn new(home: Home) -> Self {
        Self {
            upstreams: Service::ALL.map(|s| Watched::new(home.upstreams(s), Upstreams::parse)),
            balance: Watched::new(home.balance(), Balance::parse),
            routes: Watched::new(home.routes(), Routes::parse),
            settings: Watched::new(home.settings(), Settings::parse),
            home,
        }
    }

    /// Where they lie.
    #[must_use]
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// What counts for a request of `service` that comes now.
    #[must_use]
    pub fn snapshot(&self, service: Service) -> Snapshot {
        Snapshot {
            upstreams: self.upstreams[service.index()].get(),
            balance: self.balance.get(),
            routes: self.routes.get(),
            settings: self.settings.get(),
            service,
        }
    }

    /// Everything that is wrong with the files, in words.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut all = Vec::new();
        for file in &self.upstreams {
            all.extend(file.fault().map(|f| f.to_string()));
            all.extend(file.get().faults.iter().cloned());
        }
        all.extend(self.balance.fault().map(|f| f.to_string()));
        all.extend(self.routes.fault().map(|f| f.to_string()));
        all.extend(self.settings.fault().map(|f| f.to_string()));
        all
    }
}
