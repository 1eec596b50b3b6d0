//! Tokens of service accounts that end sooner than the API server would give any: it signs them for ten minutes at
//! least. Signed by its own key, so that it believes them.

use std::{fs, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use rcgen::KeyPair;
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use serde_json::json;

use super::{Cluster, Error};

/// As [`Cluster`]'s API server has it.
const ISSUER: &str = "https://tests.informerd.invalid";

/// A token of a service account for this audience, from now on and for so long; in whole seconds.
pub async fn short_token(
    cluster: &Cluster,
    namespace: &str,
    account: &str,
    audience: &str,
    lifetime: Duration,
) -> Result<String, Error> {
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client().await, namespace);
    let uid = accounts.get(account).await?.metadata.uid;
    let now = std::time::UNIX_EPOCH.elapsed()?.as_secs();
    let claims = json!({
        "iss": ISSUER, "aud": [audience], "sub": format!("system:serviceaccount:{namespace}:{account}"),
        "iat": now, "nbf": now, "exp": now + lifetime.as_secs(),
        "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": account, "uid": uid}},
    });
    let part = |it: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(it);
    let header = json!({"alg": "ES256", "typ": "JWT"});
    let signed = [header, claims]
        .map(|it| part(it.to_string().as_bytes()))
        .join(".");
    let key = KeyPair::from_pem(&fs::read_to_string(cluster.signing_key())?)?;
    let random = SystemRandom::new();
    let unusable = |_| "the API server's key is of no use";
    let (algorithm, der) = (&ECDSA_P256_SHA256_FIXED_SIGNING, key.serialize_der());
    let key = EcdsaKeyPair::from_pkcs8(algorithm, &der, &random).map_err(|it| it.to_string())?;
    let signature = key.sign(&random, signed.as_bytes()).map_err(unusable)?;
    Ok(format!("{signed}.{}", part(signature.as_ref())))
}
