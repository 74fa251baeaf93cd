//! The port and its thread: what every daemon's port serves.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use dfs_disk::real::replace_file_at;
use prometheus_client::encoding::prometheus_text;

use crate::host::is_of_this_machine;
use crate::inside::Inside;
use crate::listen::Bounded;
use crate::{Daemon, page};

/// What a page from here may load: its own files, and nothing of anybody else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A port that is open and not served yet: so a daemon learns before it does anything else that it can't have it.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    addr: SocketAddr,
    port_file: Option<PathBuf>,
}

#[derive(Clone)]
struct Here {
    daemon: Arc<dyn Daemon>,
    inside: Inside,
}

impl Bound {
    pub(crate) fn new(addr: SocketAddr, port_file: Option<PathBuf>) -> io::Result<Bound> {
        let listener = TcpListener::bind(addr)?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        Ok(Bound { listener, addr, port_file })
    }

    /// Serves `daemon`, and `more`, on a thread of its own for as long as the process lives; `beside` runs there, too.
    /// Questions run where `inside` leads.
    ///
    /// # Errors
    /// When the thread can't be started or the address can't be told.
    pub fn serve(
        self,
        inside: Inside,
        daemon: Arc<dyn Daemon>,
        more: Router,
        beside: impl Future<Output = ()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let Bound { listener, addr, port_file } = self;
        let here = Here { daemon, inside };
        let own = Router::new()
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(here);
        let mut routes = secured(own.merge(more));
        if addr.ip().is_loopback() {
            routes = routes.layer(middleware::from_fn(only_this_machine));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let serve = async move {
            drop(tokio::spawn(beside));
            let listener = tokio::net::TcpListener::from_std(listener)?;
            axum::serve(Bounded::new(listener), routes).await
        };
        std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
            if let Err(error) = runtime.block_on(serve) {
                log::error!("the admin port ended: {error}");
            }
        })?;
        if let Some(path) = port_file {
            let told = replace_file_at(&path, format!("{addr}\n").as_bytes());
            told.with_context(|| format!("can't write {}", path.display()))?;
        }
        log::info!("admin port at {addr}");
        Ok(())
    }

    /// Where it is, with the port that the system chose for port 0.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

/// Tells browsers what not to do with what `routes` answer.
pub fn secured(routes: Router) -> Router {
    routes.layer(middleware::map_response(|mut response: Response| async move {
        let headers = response.headers_mut();
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }))
}

async fn only_this_machine(request: Request, next: Next) -> Response {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if is_of_this_machine(host) {
        return next.run(request).await;
    }
    let why =
        "this port is for this machine: ask for it as localhost, or open it to a network with --admin\n";
    (StatusCode::MISDIRECTED_REQUEST, why).into_response()
}

/// Sound, or not and why.
fn verdict(said: Result<(), String>) -> Response {
    match said {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn healthz(State(here): State<Here>) -> Response {
    verdict(here.inside.ask(here.daemon.alive()).await)
}

async fn readyz(State(here): State<Here>) -> Response {
    verdict(here.inside.ask(here.daemon.ready()).await)
}

async fn metrics(State(here): State<Here>) -> Response {
    let text = match here.inside.ask(here.daemon.figures()).await {
        Ok(figures) => page::text(figures).map_err(|error| error.to_string()),
        Err(why) => Err(why),
    };
    match text {
        Ok(text) => ([(CONTENT_TYPE, prometheus_text::CONTENT_TYPE)], text).into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}
