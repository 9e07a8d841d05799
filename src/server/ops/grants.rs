//! Grants.

use serde::Deserialize;
use serde_json::{Value, json};

use super::crypto::encrypt::{Pairs, context};
use super::{
    Call, DRY_RUN, Fault, GRANT_TOKENS, KEY_ID, LIMIT, MARKER, Member, Operation, Shape, shapes,
    wire,
};
use crate::keystore::{Constraints, CreateGrant, GrantEntry, GrantFilter};

pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        name: "CreateGrant",
        about: "Let a principal use a key",
        members: &[
            KEY_ID,
            GRANTEE,
            Member::optional("RetiringPrincipal", &shapes::PRINCIPAL),
            Member::needed("Operations", &OPERATIONS_LIST),
            Member::optional("Constraints", &CONSTRAINTS),
            GRANT_TOKENS,
            Member::optional("Name", &shapes::GRANT_NAME),
            DRY_RUN,
            GRANTEE_SERVICE,
            RETIRING_SERVICE,
        ],
        run: create_grant,
    },
    Operation {
        name: "ListGrants",
        about: "List the grants of a key",
        members: &[LIMIT, MARKER, KEY_ID, GRANT_ID, GRANTEE, GRANTEE_SERVICE],
        run: list_grants,
    },
    Operation {
        name: "ListRetirableGrants",
        about: "List the grants that a principal may retire",
        members: &[
            LIMIT,
            MARKER,
            Member::optional("RetiringPrincipal", &shapes::PRINCIPAL),
            RETIRING_SERVICE,
        ],
        run: list_retirable_grants,
    },
    Operation {
        name: "RevokeGrant",
        about: "Take back a grant",
        members: &[KEY_ID, Member::needed("GrantId", &shapes::GRANT_ID), DRY_RUN],
        run: revoke_grant,
    },
    Operation {
        name: "RetireGrant",
        about: "Give back a grant",
        members: &[
            Member::optional("GrantToken", &shapes::GRANT_TOKEN),
            Member::optional("KeyId", &shapes::KEY_ID),
            GRANT_ID,
            DRY_RUN,
        ],
        run: retire_grant,
    },
];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CreateRequest {
    grantee_principal: Option<String>,
    retiring_principal: Option<String>,
    grantee_service_principal: Option<String>,
    retiring_service_principal: Option<String>,
    operations: Vec<String>,
    constraints: Option<ConstraintsRequest>,
    name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ConstraintsRequest {
    encryption_context_subset: Option<Pairs>,
    encryption_context_equals: Option<Pairs>,
    source_arn: Option<String>,
}

fn create_grant(call: &Call<'_>) -> Result<Value, Fault> {
    let asked: CreateRequest = call.read()?;
    if asked.grantee_service_principal.is_some() || asked.retiring_service_principal.is_some() {
        return Err(no_services());
    }
    let grantee = asked
        .grantee_principal
        .ok_or_else(|| Fault::validation("GranteePrincipal is required."))?;
    let operation = |name: &String| {
        name.parse().map_err(|_| Fault::unsupported(format!("Operation {name} is not supported.")))
    };
    let request = CreateGrant {
        grantee,
        retiring: asked.retiring_principal,
        operations: asked.operations.iter().map(operation).collect::<Result<_, _>>()?,
        constraints: constraints(asked.constraints)?,
        name: asked.name,
        expires: None,
    };
    let made = call.keystore.create_grant(&call.key_id()?.into(), &request, call.now)?;
    Ok(json!({ "GrantToken": made.token, "GrantId": made.id.to_string() }))
}

fn constraints(asked: Option<ConstraintsRequest>) -> Result<Constraints, Fault> {
    let Some(asked) = asked else { return Ok(Constraints::default()) };
    if asked.source_arn.is_some() {
        return Err(no_services());
    }
    Ok(Constraints {
        equals: asked.encryption_context_equals.map(|pairs| context(Some(pairs))),
        subset: asked.encryption_context_subset.map(|pairs| context(Some(pairs))),
    })
}

fn no_services() -> Fault {
    Fault::unsupported("Grants for AWS services are not supported.")
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListRequest {
    grant_id: Option<String>,
    grantee_principal: Option<String>,
}

fn list_grants(call: &Call<'_>) -> Result<Value, Fault> {
    let asked: ListRequest = call.read()?;
    let filter = GrantFilter {
        id: asked.grant_id.map(|id| id.parse()).transpose()?,
        grantee: asked.grantee_principal,
    };
    let grants = call.keystore.list_grants(&call.key_id()?.into(), &filter)?;
    listed(call, grants)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListRetirableRequest {
    retiring_principal: Option<String>,
}

fn list_retirable_grants(call: &Call<'_>) -> Result<Value, Fault> {
    let asked: ListRetirableRequest = call.read()?;
    let retiring = asked
        .retiring_principal
        .ok_or_else(|| Fault::validation("RetiringPrincipal is required."))?;
    listed(call, call.keystore.list_retirable_grants(&retiring)?)
}

fn listed(call: &Call<'_>, grants: Vec<GrantEntry>) -> Result<Value, Fault> {
    let shown: Vec<Value> =
        grants.iter().map(|grant| entry(call, grant)).collect::<Result<_, _>>()?;
    let page = call.page(50, shown, |grant| grant["GrantId"].as_str().unwrap_or("").to_owned())?;
    Ok(page.answer("Grants", |grant| grant))
}

fn entry(call: &Call<'_>, grant: &GrantEntry) -> Result<Value, Fault> {
    let mut shown = wire::value(grant)?;
    shown["KeyId"] = call.arn(grant.key_id).into();
    Ok(shown)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EndRequest {
    grant_id: Option<String>,
    grant_token: Option<String>,
    key_id: Option<String>,
}

fn revoke_grant(call: &Call<'_>) -> Result<Value, Fault> {
    let asked: EndRequest = call.read()?;
    let grant = asked.grant_id.unwrap_or_default().parse()?;
    call.keystore.revoke_grant(&call.key_id()?.into(), grant)?;
    Ok(Value::Null)
}

fn retire_grant(call: &Call<'_>) -> Result<Value, Fault> {
    let asked: EndRequest = call.read()?;
    match (asked.grant_token, asked.key_id, asked.grant_id) {
        (Some(token), None, None) => call.keystore.retire_grant_by_token(&token)?,
        (None, Some(_), Some(grant)) => {
            call.keystore.retire_grant(&call.key_id()?.into(), grant.parse()?)?;
        }
        _ => {
            return Err(Fault::validation(
                "Specify either a grant token, or a key ARN and a grant ID, but not both.",
            ));
        }
    }
    Ok(Value::Null)
}

const GRANTEE: Member = Member::optional("GranteePrincipal", &shapes::PRINCIPAL);
const GRANT_ID: Member = Member::optional("GrantId", &shapes::GRANT_ID);
const GRANTEE_SERVICE: Member =
    Member::optional("GranteeServicePrincipal", &shapes::SERVICE_PRINCIPAL);
const RETIRING_SERVICE: Member =
    Member::optional("RetiringServicePrincipal", &shapes::SERVICE_PRINCIPAL);
const OPERATIONS_LIST: Shape = Shape::List {
    of: &Shape::Choice(&[
        "Decrypt",
        "Encrypt",
        "GenerateDataKey",
        "GenerateDataKeyWithoutPlaintext",
        "ReEncryptFrom",
        "ReEncryptTo",
        "Sign",
        "Verify",
        "GetPublicKey",
        "CreateGrant",
        "RetireGrant",
        "DescribeKey",
        "GenerateDataKeyPair",
        "GenerateDataKeyPairWithoutPlaintext",
        "GenerateMac",
        "VerifyMac",
        "DeriveSharedSecret",
        "Encapsulate",
        "Decapsulate",
    ]),
    length: (0, usize::MAX),
};
const CONSTRAINTS: Shape = Shape::Structure(&[
    Member::optional("EncryptionContextSubset", &shapes::CONTEXT),
    Member::optional("EncryptionContextEquals", &shapes::CONTEXT),
    Member::optional("SourceArn", &shapes::SOURCE_ARN),
]);
