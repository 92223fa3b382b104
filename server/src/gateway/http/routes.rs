//! Routes, methods, permissions and query parameters, as data.

use crate::auth::Permission;
use crate::metrics::HTTP_ROUTES;
use http::Method;

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Ui,
    Health,
    Live,
    Ready,
    Metrics,
    EntityPutMany,
    /// One entity by `key=`, or a listing without it.
    EntityCollection,
    EntityDeleteByKey,
    EntityGet,
    EntityPut,
    EntityDelete,
    SchemaGet,
    SchemaPut,
    SchemaDelete,
    SchemaList,
    Schemas,
    Stats,
    RotateKey,
}

/// Who may use a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everyone; a credential is not looked at.
    Public,
    /// Holders of a permission.
    Needs(Permission),
}

/// One method of a resource. `HEAD` exists wherever `GET` does, `OPTIONS` everywhere.
pub struct Route {
    pub method: Method,
    pub endpoint: Endpoint,
    pub access: Access,
    pub query: &'static [&'static str],
    /// Index into `HTTP_ROUTES`.
    pub metric: usize,
}

/// One part of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Is(&'static str),
    Schema,
    Key,
}

/// A path and the methods it takes.
pub struct Resource {
    path: &'static [Part],
    pub routes: &'static [Route],
    /// The value of `Allow`.
    pub allow: &'static str,
}

/// Where a path leads.
pub struct Target<'a> {
    pub resource: &'static Resource,
    pub schema: Option<&'a str>,
    pub key: Option<&'a str>,
}

/// The index of a route's figures, found at compile time.
const fn metric(name: &str) -> usize {
    let mut index = 0;
    while index < HTTP_ROUTES.len() {
        if equal(HTTP_ROUTES[index].as_bytes(), name.as_bytes()) {
            return index;
        }
        index += 1;
    }
    panic!("no such route in HTTP_ROUTES")
}

const fn equal(left: &[u8], right: &[u8]) -> bool {
    let mut index = 0;
    while index < left.len() && index < right.len() && left[index] == right[index] {
        index += 1;
    }
    index == left.len() && index == right.len()
}

/// Figures of what has no route.
pub const METRIC_OTHER: usize = metric("other");
/// Figures of a read by key.
pub const METRIC_ENTITY_GET: usize = metric("entity_get");

/// Every method that some resource takes: the answer to `OPTIONS *`.
pub const ALLOW_SOMEWHERE: &str = "GET, HEAD, PUT, POST, DELETE, OPTIONS";

macro_rules! route {
    ($method:ident $endpoint:ident $access:expr, $metric:literal $(, $query:literal)*) => {
        Route {
            method: Method::$method,
            endpoint: Endpoint::$endpoint,
            access: $access,
            query: &[$($query),*],
            metric: metric($metric),
        }
    };
}

const READ: Access = Access::Needs(Permission::Read);
const WRITE: Access = Access::Needs(Permission::Write);
const ADMIN: Access = Access::Needs(Permission::Admin);
const PUBLIC: Access = Access::Public;

/// Every resource; entities first, since nearly every request is for one.
pub static RESOURCES: &[Resource] = &[
    Resource {
        path: &[Part::Is("entity"), Part::Schema, Part::Key],
        routes: &[
            route!(GET EntityGet READ, "entity_get"),
            route!(PUT EntityPut WRITE, "entity_put"),
            route!(DELETE EntityDelete WRITE, "entity_delete"),
        ],
        allow: "GET, HEAD, PUT, DELETE, OPTIONS",
    },
    Resource {
        path: &[Part::Is("entity"), Part::Schema],
        routes: &[
            route!(GET EntityCollection READ, "entity_list", "key", "prefix", "after", "limit", "documents"),
            route!(PUT EntityPutMany WRITE, "entity_put_many"),
            route!(DELETE EntityDeleteByKey WRITE, "entity_delete", "key"),
        ],
        allow: "GET, HEAD, PUT, DELETE, OPTIONS",
    },
    Resource {
        path: &[Part::Is("schema"), Part::Schema],
        routes: &[
            route!(GET SchemaGet PUBLIC, "schema_get"),
            route!(PUT SchemaPut WRITE, "schema_put"),
            route!(DELETE SchemaDelete WRITE, "schema_delete"),
        ],
        allow: "GET, HEAD, PUT, DELETE, OPTIONS",
    },
    Resource {
        path: &[Part::Is("admin"), Part::Is("schemas")],
        routes: &[route!(GET SchemaList PUBLIC, "schema_list")],
        allow: "GET, HEAD, OPTIONS",
    },
    Resource {
        path: &[Part::Is("api"), Part::Is("schemas")],
        routes: &[route!(GET Schemas READ, "schemas", "counts")],
        allow: "GET, HEAD, OPTIONS",
    },
    Resource {
        path: &[Part::Is("admin"), Part::Is("stats")],
        routes: &[route!(GET Stats ADMIN, "admin")],
        allow: "GET, HEAD, OPTIONS",
    },
    Resource {
        path: &[Part::Is("admin"), Part::Is("keys"), Part::Is("rotate")],
        routes: &[route!(POST RotateKey ADMIN, "admin")],
        allow: "POST, OPTIONS",
    },
    Resource {
        path: &[Part::Is("health")],
        routes: &[route!(GET Health PUBLIC, "health")],
        allow: "GET, HEAD, OPTIONS",
    },
    Resource { path: &[Part::Is("livez")], routes: &[route!(GET Live PUBLIC, "health")], allow: "GET, HEAD, OPTIONS" },
    Resource {
        path: &[Part::Is("readyz")],
        routes: &[route!(GET Ready PUBLIC, "health")],
        allow: "GET, HEAD, OPTIONS",
    },
    Resource {
        path: &[Part::Is("metrics")],
        routes: &[route!(GET Metrics PUBLIC, "metrics")],
        allow: "GET, HEAD, OPTIONS",
    },
    Resource { path: &[Part::Is("")], routes: &[route!(GET Ui PUBLIC, "ui")], allow: "GET, HEAD, OPTIONS" },
];

impl Resource {
    /// The route of a method; a HEAD is a GET whose body hyper leaves out.
    pub fn route(&self, method: &Method) -> Option<&Route> {
        let method = if *method == Method::HEAD { &Method::GET } else { method };
        self.routes.iter().find(|route| route.method == *method)
    }
}

/// Where a path leads, if anywhere. Segments are not decoded.
pub fn find(path: &str) -> Option<Target<'_>> {
    let path = path.strip_prefix('/')?;
    RESOURCES.iter().find_map(|resource| {
        let mut target = Target { resource, schema: None, key: None };
        let mut segments = path.split('/');
        for part in resource.path {
            let segment = segments.next()?;
            match part {
                Part::Is(name) if *name == segment => {}
                Part::Is(_) => return None,
                Part::Schema => target.schema = Some(segment),
                Part::Key => target.key = Some(segment),
            }
        }
        segments.next().is_none().then_some(target)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allow_lists_exactly_the_methods_of_each_resource() {
        for resource in RESOURCES {
            let mut expected = Vec::new();
            for route in resource.routes {
                expected.push(route.method.as_str());
                if route.method == Method::GET {
                    expected.push("HEAD");
                }
            }
            expected.push("OPTIONS");
            assert_eq!(resource.allow, expected.join(", "), "{:?}", resource.path);
            assert!(expected.iter().all(|method| ALLOW_SOMEWHERE.split(", ").any(|known| known == *method)));
        }
    }

    #[test]
    fn paths_lead_where_they_should() {
        let endpoint = |path| find(path).map(|target| target.resource.routes[0].endpoint);
        assert_eq!(endpoint("/"), Some(Endpoint::Ui));
        assert_eq!(endpoint("/entity/s"), Some(Endpoint::EntityCollection));
        assert_eq!(endpoint("/entity/s/k"), Some(Endpoint::EntityGet));
        assert_eq!(endpoint("/entity/s/"), Some(Endpoint::EntityGet));
        assert_eq!(endpoint("/admin/keys/rotate"), Some(Endpoint::RotateKey));
        for unknown in ["", "*", "/entity", "/entity/s/k/x", "/Entity/s", "//", "/health/", "/api/keys", "/metrics2"] {
            assert_eq!(endpoint(unknown), None, "{unknown}");
        }
        let target = find("/entity/a%2Fb/c").unwrap();
        assert_eq!((target.schema, target.key), (Some("a%2Fb"), Some("c")));
    }
}
