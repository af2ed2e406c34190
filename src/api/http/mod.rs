//! The endpoints beside gRPC: `/health`, `/livez`, `/readyz`, `/version`, `/metrics`, `/debug/vars`, and the rules in
//! front of everything HTTP.

mod access;
mod debug;
mod health;
mod peers;
pub(super) mod plain;
mod probes;

use std::sync::Arc;

use axum::{
    Router,
    extract::Request,
    middleware::{Next, from_fn},
    response::Response,
    routing::any,
};

use super::{Api, Serves, gateway, guest, v2};
use plain::{any_method, get_only, not_found};

/// Everything one listener serves over HTTP.
pub(super) fn router(api: &Arc<Api>, serves: Serves, secure: bool) -> Router {
    if serves == Serves::Peers {
        return peers::router(api);
    }
    let mut router = Router::new()
        .route("/health", get_only(api, health::health))
        .route("/metrics", any_method(api, debug::metrics))
        .route("/livez", get_only(api, probes::live))
        .route("/livez/{check}", get_only(api, probes::live_check))
        .route("/readyz", get_only(api, probes::ready))
        .route("/readyz/{check}", get_only(api, probes::ready_check));
    if serves != Serves::Metrics {
        router =
            router.route("/version", get_only(api, debug::version)).route("/debug/vars", get_only(api, debug::vars));
        if api.options().gateway {
            router = router
                .route("/v3", any(gateway::redirect))
                .route("/v3/", any_method(api, gateway::serve))
                .route("/v3/{*path}", any_method(api, gateway::serve));
        }
        if api.options().v2 {
            router = router.merge(v2::router(api));
        }
        router = router.merge(reflection());
    }
    if serves == Serves::Metrics {
        let router = router.fallback(not_found);
        return Router::new().fallback_service(router).layer(from_fn(clean));
    }
    let host = Arc::clone(api);
    let router = router.fallback(move |request: Request| {
        let api = Arc::clone(&host);
        async move {
            match guest::answer(&api, secure, request).await {
                Some(answer) => answer,
                None => not_found().await,
            }
        }
    });
    let api = Arc::clone(api);
    Router::new().fallback_service(router).layer(from_fn(move |request: Request, next: Next| {
        let api = Arc::clone(&api);
        async move { access::check(&api, secure, request, next).await }
    }))
}

/// Sends those elsewhere whose path is not clean; on the client port [`access`] sees to that.
async fn clean(mut request: Request, next: Next) -> Response {
    let Some(path) = plain::plainly_written(request.uri().path()) else { return plain::bad_request() };
    if let Some(location) = plain::cleaned(request.uri()) {
        plain::redirect(request.method(), &location)
    } else {
        plain::set_path(request.uri_mut(), &path);
        next.run(request).await
    }
}

/// gRPC server reflection, both versions, from the descriptors this program was built from.
fn reflection() -> Router {
    let builder =
        || tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(crate::pb::DESCRIPTORS);
    let (Ok(v1), Ok(v1alpha)) = (builder().build_v1(), builder().build_v1alpha()) else {
        unreachable!("the descriptors were written by the build of this program");
    };
    tonic::service::Routes::new(v1).add_service(v1alpha).into_axum_router()
}
