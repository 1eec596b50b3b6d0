//! `informerd get`.

use tonic::Code;

use super::{
    Error, Format, Output, note, print,
    target::{ReadArgs, Target},
};
use crate::{
    client::{self, Client, List},
    proto::{Freshness, GetObjectRequest, ListObjectsRequest, Object},
};

/// Arguments of `get`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    read: ReadArgs,
}

/// Prints one object or a list.
pub async fn run(args: Args, out: &mut Output<'_>) -> Result<(), Error> {
    let args = args.read;
    let (client, mut target) = args.resolve().await?;
    let mut found = find(&client, &target, &args).await;
    if let Err(refused) = &found
        && target.accept_metadata(refused, out)
    {
        found = find(&client, &target, &args).await;
    }
    let (objects, freshness) = found?;
    if target.kind.metadata_only && freshness.positions.is_empty() {
        writeln!(
            out.err,
            "note: {}: read from the API server, since only metadata is cached",
            target.scope.resource
        )?;
    }
    if let Some(warning) = note::warning(&target.scope.resource, &freshness, Some(&target.kind)) {
        writeln!(out.err, "{warning}")?;
    }
    if freshness.pruned && args.output.is_whole() {
        writeln!(out.err, "{}", note::PRUNED)?;
    }
    if objects.is_empty() && !args.output.is_whole() {
        return Ok(writeln!(out.err, "{}", target.nothing())?);
    }
    match args.output {
        Format::Json | Format::Yaml => match &objects[..] {
            [object] if !target.scope.name.is_empty() => print::one(out.out, args.output, object),
            objects => print::list(out.out, args.output, objects),
        },
        Format::Name => {
            for object in &objects {
                print::name(out.out, &target, object)?;
            }
            Ok(())
        }
        Format::Table | Format::Wide => print::Rows::new(&target, args.output, false)
            .write(out, objects.iter().map(|object| ("", object))),
    }
}

async fn find(
    client: &Client,
    target: &Target,
    args: &ReadArgs,
) -> Result<(Vec<Object>, Freshness), Error> {
    let fields = args.fields.clone();
    if !target.scope.name.is_empty() {
        let (object, freshness) = one(client, target, args.output, fields).await?;
        return Ok((vec![object], freshness));
    }
    let request = ListObjectsRequest {
        scope: Some(target.scope.clone()),
        view: target.view(args.output).into(),
        fields,
        ..ListObjectsRequest::default()
    };
    let List {
        objects, freshness, ..
    } = client.list(request).await?;
    Ok((objects, freshness))
}

async fn one(
    client: &Client,
    target: &Target,
    output: Format,
    fields: Vec<String>,
) -> Result<(Object, Freshness), Error> {
    let request = GetObjectRequest {
        scope: Some(target.scope.clone()),
        view: target.view(output).into(),
        fields,
        // A table has columns enough of metadata.
        read_through: output.is_whole() && !target.metadata_only,
        ..GetObjectRequest::default()
    };
    client.get(request).await.map_err(|error| match &error {
        client::Error::Refused(refusal)
            if refusal.code == Code::NotFound && refusal.reason == "OBJECT_NOT_FOUND" =>
        {
            target.not_found()
        }
        _ => error.into(),
    })
}
