//! Users, roles, and whether they count.

use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Answer, Cluster, V2Error, action::Action, json};

/// A user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: String,
    /// The names of its roles.
    pub roles: Vec<String>,
    /// Whether the answer told all of each role, as it does when a user is asked for.
    pub is_expanded: bool,
}

/// A role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Role {
    /// Its name.
    #[serde(rename = "role")]
    pub name: String,
    /// What it may do.
    pub permissions: Permissions,
    #[serde(skip_serializing_if = "Option::is_none")]
    grant: Option<Permissions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoke: Option<Permissions>,
}

/// What a role may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Permissions {
    kv: Paths,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Paths {
    read: Option<Vec<String>>,
    write: Option<Vec<String>>,
}

/// A way to use a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Access {
    Read,
    Write,
    ReadWrite,
}

impl Permissions {
    fn of(path: &str, access: Access) -> Self {
        let when = |is_meant: bool| is_meant.then(|| vec![path.to_owned()]);
        Self { kv: Paths { read: when(access != Access::Write), write: when(access != Access::Read) } }
    }

    /// The paths that may be read.
    pub fn read(&self) -> &[String] {
        self.kv.read.as_deref().unwrap_or_default()
    }

    /// The paths that may be written.
    pub fn write(&self) -> &[String] {
        self.kv.write.as_deref().unwrap_or_default()
    }
}

/// What is sent about a user.
#[derive(Default, Serialize)]
struct UserRequest<'a> {
    user: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    password: &'a str,
    roles: Option<Vec<String>>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    grant: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    revoke: &'a [String],
}

impl Cluster {
    /// Makes users and roles count, or not.
    ///
    /// # Errors
    /// What the cluster answered, or why nobody did.
    pub async fn set_auth(&mut self, enabled: bool) -> Result<(), V2Error> {
        let method = if enabled { Method::PUT } else { Method::DELETE };
        let answer = self.perform(&Action::new(method, "/v2/auth/enable")).await?;
        granted(&answer, &DONE)
    }

    /// The names of all users.
    ///
    /// # Errors
    /// As [`set_auth`](Self::set_auth).
    pub async fn users(&mut self) -> Result<Vec<String>, V2Error> {
        let answer = self.perform(&Action::get(USERS).typed(JSON)).await?;
        granted(&answer, &[StatusCode::OK])?;
        names(&answer.body, "users", "user")
    }

    /// A user with its roles.
    ///
    /// # Errors
    /// As [`set_auth`](Self::set_auth).
    pub async fn user(&mut self, name: &str) -> Result<User, V2Error> {
        self.user_answer(&Action::get(below(USERS, name))).await
    }

    /// Makes a user.
    ///
    /// # Errors
    /// As [`set_auth`](Self::set_auth).
    pub async fn add_user(&mut self, name: &str, password: &str) -> Result<(), V2Error> {
        let action = user_action(&UserRequest { user: name, password, ..UserRequest::default() })?;
        granted(&self.perform(&action).await?, &DONE)
    }

    /// Removes a user.
    ///
    /// # Errors
    /// As [`set_auth`](Self::set_auth).
    pub async fn remove_user(&mut self, name: &str) -> Result<(), V2Error> {
        granted(&self.perform(&Action::new(Method::DELETE, below(USERS, name))).await?, &DONE)
    }

    /// Gives a user another password.
    ///
    /// # Errors
    /// As [`set_auth`](Self::set_auth).
    pub async fn change_password(&mut self, name: &str, password: &str) -> Result<User, V2Error> {
        let action = user_action(&UserRequest { user: name, password, ..UserRequest::default() })?;
        self.user_answer(&action).await
    }

    /// Gives roles to a user.
    ///
    /// # Errors
    /// As [`set_auth`](Self::set_auth).
    pub async fn grant_roles(&mut self, name: &str, roles: &[String]) -> Result<User, V2Error> {
        let action = user_action(&UserRequest { user: name, grant: roles, ..UserRequest::default() })?;
        self.user_answer(&action).await
    }

    /// Takes roles from a user.
    ///
    /// # Errors
    /// As [`set_auth`](Self::set_auth).
    pub async fn revoke_roles(&mut self, name: &str, roles: &[String]) -> Result<User, V2Error> {
        let action = user_action(&UserRequest { user: name, revoke: roles, ..UserRequest::default() })?;
        self.user_answer(&action).await
    }

    async fn user_answer(&mut self, action: &Action) -> Result<User, V2Error> {
        let answer = self.perform(action).await?;
        granted(&answer, &[StatusCode::OK])?;
        Ok(user(&json::read(&answer.body)?))
    }

    /// The names of all roles.
    ///
    /// # Errors
    /// As [`set_auth`](Self::set_auth).
    pub async fn roles(&mut self) -> Result<Vec<String>, V2Error> {
        let answer = self.perform(&Action::get(ROLES).typed(JSON)).await?;
        match answer.status {
            StatusCode::OK => names(&answer.body, "roles", "role"),
            status => Err(V2Error::Status(status.as_u16())),
        }
    }

    /// A role with what it may do.
    ///
    /// # Errors
    /// As [`set_auth`](Self::set_auth).
    pub async fn role(&mut self, name: &str) -> Result<Role, V2Error> {
        self.role_answer(&Action::get(below(ROLES, name))).await
    }

    /// Makes a role that may do nothing.
    ///
    /// # Errors
    /// As [`set_auth`](Self::set_auth).
    pub async fn add_role(&mut self, name: &str) -> Result<(), V2Error> {
        let action = role_action(&Role { name: name.to_owned(), ..Role::default() })?;
        granted(&self.perform(&action).await?, &DONE)
    }

    /// Removes a role.
    ///
    /// # Errors
    /// As [`set_auth`](Self::set_auth).
    pub async fn remove_role(&mut self, name: &str) -> Result<(), V2Error> {
        granted(&self.perform(&Action::new(Method::DELETE, below(ROLES, name))).await?, &DONE)
    }

    /// Lets a role use a path.
    ///
    /// # Errors
    /// As [`set_auth`](Self::set_auth).
    pub async fn grant_path(&mut self, role: &str, path: &str, access: Access) -> Result<Role, V2Error> {
        let grant = Some(Permissions::of(path, access));
        self.role_answer(&role_action(&Role { name: role.to_owned(), grant, ..Role::default() })?).await
    }

    /// No longer lets a role use a path.
    ///
    /// # Errors
    /// As [`set_auth`](Self::set_auth).
    pub async fn revoke_path(&mut self, role: &str, path: &str, access: Access) -> Result<Role, V2Error> {
        let revoke = Some(Permissions::of(path, access));
        self.role_answer(&role_action(&Role { name: role.to_owned(), revoke, ..Role::default() })?).await
    }

    async fn role_answer(&mut self, action: &Action) -> Result<Role, V2Error> {
        let answer = self.perform(action).await?;
        granted(&answer, &[StatusCode::OK])?;
        json::read(&answer.body)
    }
}

fn user_action(user: &UserRequest<'_>) -> Result<Action, V2Error> {
    Ok(Action::new(Method::PUT, below(USERS, user.user)).json(encoded(user)?))
}

fn role_action(role: &Role) -> Result<Action, V2Error> {
    Ok(Action::new(Method::PUT, below(ROLES, &role.name)).json(encoded(role)?))
}

fn encoded(value: &impl Serialize) -> Result<Vec<u8>, V2Error> {
    serde_json::to_vec(value).map_err(|error| V2Error::BadJson(error.to_string()))
}

/// The roles of a user are names, or objects that tell all of each.
fn user(value: &Value) -> User {
    let roles = value.get("roles").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let is_expanded = roles.iter().any(Value::is_object);
    let name = |role: &Value| text(if is_expanded { role.get("role") } else { Some(role) });
    User { name: text(value.get("user")), roles: roles.iter().map(name).collect(), is_expanded }
}

/// The member `name` of each object in the list `list`.
fn names(body: &[u8], list: &str, name: &str) -> Result<Vec<String>, V2Error> {
    let value: Value = json::read(body)?;
    let items = value.get(list).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    Ok(items.iter().map(|item| text(item.get(name))).collect())
}

fn text(value: Option<&Value>) -> String {
    value.and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn granted(answer: &Answer, expected: &[StatusCode]) -> Result<(), V2Error> {
    if expected.contains(&answer.status) { Ok(()) } else { Err(json::refusal(&answer.body)?) }
}

fn below(collection: &str, name: &str) -> String {
    format!("{collection}/{}", name.trim_end_matches('/')).trim_end_matches('/').to_owned()
}

const USERS: &str = "/v2/auth/users";
const ROLES: &str = "/v2/auth/roles";
const JSON: &str = "application/json";
const DONE: [StatusCode; 2] = [StatusCode::OK, StatusCode::CREATED];

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(value: &impl Serialize) -> String {
        String::from_utf8(encoded(value).unwrap()).unwrap()
    }

    #[test]
    fn requests_have_the_form_of_etcd() {
        let user = UserRequest { user: "u", password: "p", ..UserRequest::default() };
        assert_eq!(sent(&user), r#"{"user":"u","password":"p","roles":null}"#);
        let roles = ["r".to_owned()];
        let user = UserRequest { user: "u", grant: &roles, ..UserRequest::default() };
        assert_eq!(sent(&user), r#"{"user":"u","roles":null,"grant":["r"]}"#);
        let grant = Some(Permissions::of("/a", Access::Read));
        let role = Role { name: "r".into(), grant, ..Role::default() };
        let text = r#"{"role":"r","permissions":{"kv":{"read":null,"write":null}},"grant":{"kv":{"read":["/a"],"write":null}}}"#;
        assert_eq!(sent(&role), text);
    }

    #[test]
    fn roles_of_a_user_are_names_or_objects() {
        let of = |text: &str| user(&serde_json::from_str(text).unwrap());
        let names = User { name: "u".into(), roles: vec!["a".into()], is_expanded: false };
        assert_eq!(of(r#"{"user":"u","roles":["a"]}"#), names);
        let expanded = User { is_expanded: true, ..names };
        assert_eq!(of(r#"{"user":"u","roles":[{"role":"a","permissions":{}}]}"#), expanded);
        assert_eq!(of(r#"{"user":"u","roles":null}"#).roles, Vec::<String>::new());
    }
}
