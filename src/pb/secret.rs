//! Messages that hold passwords, hashes or tokens, as they are shown: without them.

use std::fmt;

use super::{
    authpb::User,
    etcdserverpb::{
        AuthUserAddRequest, AuthUserChangePasswordRequest, AuthenticateRequest, AuthenticateResponse,
        InternalAuthenticateRequest,
    },
};

macro_rules! shown_without_secrets {
    ($($message:ident: $($shown:ident)*;)*) => {$(
        impl fmt::Debug for $message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($message))$(.field(stringify!($shown), &self.$shown))*.finish_non_exhaustive()
            }
        }
    )*};
}

shown_without_secrets! {
    User: name roles options;
    AuthUserAddRequest: name options;
    AuthUserChangePasswordRequest: name;
    AuthenticateRequest: name;
    AuthenticateResponse: header;
    InternalAuthenticateRequest: name;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let (secret, name) = ("geheim".to_owned(), "n".to_owned());
        let shown = [
            format!("{:?}", User { password: secret.clone().into(), ..User::default() }),
            format!(
                "{:?}",
                AuthUserAddRequest {
                    password: secret.clone(),
                    hashed_password: secret.clone(),
                    ..AuthUserAddRequest::default()
                }
            ),
            format!(
                "{:?}",
                AuthUserChangePasswordRequest {
                    name: name.clone(),
                    password: secret.clone(),
                    hashed_password: secret.clone()
                }
            ),
            format!("{:?}", AuthenticateRequest { name: name.clone(), password: secret.clone() }),
            format!("{:?}", AuthenticateResponse { header: None, token: secret.clone() }),
            format!(
                "{:?}",
                InternalAuthenticateRequest {
                    name: name.into(),
                    password: secret.clone().into(),
                    simple_token: secret.clone().into()
                }
            ),
        ];
        assert!(shown.iter().all(|text| !text.contains(&secret)), "{shown:?}");
    }
}
