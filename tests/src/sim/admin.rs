//! Clients that administer: templates, data keys, figures.

use super::client::{Client, Done, unexpected};
use super::judge::Reply;
use super::model::broken;
use super::server::Server;
use super::templates::Rule;
use super::world::World;
use deltadb::command::{Command, ErrorCode, Outcome};
use deltadb::storage::Storage;
use std::borrow::Cow;
use std::rc::Rc;

/// The template that a server shows when it has just started must be one that may be there; it is settled from then on.
pub(super) async fn settle_templates(world: &World, server: &Server) -> Done {
    let schema = World::schema(world.setup.schemas - 1);
    let outcome = server.call(0, Command::SchemaGet { id: Cow::Owned(schema.to_string()) }).await;
    let found = match &outcome {
        Outcome::Template(text) if text == Rule::Refuses.text() => Rule::Refuses,
        Outcome::Template(text) if text == Rule::Accepts.text() => Rule::Accepts,
        Outcome::Failed(failure) if failure.code == ErrorCode::NotFound => Rule::Absent,
        Outcome::Failed(_) if world.licence.get().reads => return Ok(()),
        other => return broken("templates bind", format!("after a start, that of {schema} reads as {}", Reply(other))),
    };
    let now = world.model.borrow().now();
    match world.templates.borrow_mut().settle(&schema, found, now) {
        true => Ok(()),
        false => broken("templates bind", format!("after a start, that of {schema} is {found:?}")),
    }
}

impl Client {
    fn last_schema(&self) -> Rc<str> {
        World::schema(self.world.setup.schemas - 1)
    }

    pub(super) async fn put_template(&mut self) -> Done {
        let rule = if self.random.below(3) == 0 { Rule::Refuses } else { Rule::Accepts };
        self.change_template(rule).await
    }

    pub(super) async fn delete_template(&mut self) -> Done {
        self.change_template(Rule::Absent).await
    }

    async fn change_template(&mut self, rule: Rule) -> Done {
        let schema = self.last_schema();
        let began = self.world.model.borrow().now();
        self.world.templates.borrow_mut().begin(&schema, self.step, rule, began);
        let id = Cow::Owned(schema.to_string());
        let command = match rule {
            Rule::Absent => Command::SchemaDelete { id },
            _ => Command::SchemaPut { id, template: Cow::Borrowed(rule.text()) },
        };
        let outcome = self.call(command).await;
        self.tell(|| format!("template of {schema} {rule:?} -> {}", Reply(&outcome)));
        let now = self.world.model.borrow().now();
        let mut templates = self.world.templates.borrow_mut();
        let licence = self.world.licence.get();
        match outcome {
            Outcome::TemplateChanged { .. } => {
                templates.acknowledge(&schema, self.step, now);
                Ok(())
            }
            Outcome::Failed(failure) => match failure.code {
                ErrorCode::OutcomeUnknown if licence.writes || licence.space || licence.stalls => Ok(()),
                ErrorCode::NotFound if rule == Rule::Absent => {
                    templates.refuse(&schema, self.step);
                    match templates.possible(&schema, began).contains(&Rule::Absent) {
                        true => Ok(()),
                        false => broken("templates bind", format!("the template of {schema} is gone")),
                    }
                }
                ErrorCode::Unavailable if licence.draining => {
                    templates.refuse(&schema, self.step);
                    Ok(())
                }
                ErrorCode::OutOfSpace if licence.space => {
                    templates.refuse(&schema, self.step);
                    Ok(())
                }
                ErrorCode::Overloaded if self.world.excuses_overload(&failure) => {
                    templates.refuse(&schema, self.step);
                    Ok(())
                }
                _ => {
                    let detail = format!("a template failed: {:?} {}", failure.code, failure.message);
                    broken("nothing fails without a reason", detail)
                }
            },
            other => unexpected(&other),
        }
    }

    pub(super) async fn read_templates(&mut self) -> Done {
        let schema = self.last_schema();
        let began = self.world.model.borrow().now();
        let outcome = self.call(Command::SchemaGet { id: Cow::Owned(schema.to_string()) }).await;
        let possible = self.possible_rules(&schema, began);
        let fits = match &outcome {
            Outcome::Template(text) => possible.iter().any(|rule| *rule != Rule::Absent && rule.text() == *text),
            Outcome::Failed(failure) if failure.code == ErrorCode::NotFound => possible.contains(&Rule::Absent),
            Outcome::Failed(failure) if failure.code == ErrorCode::Overloaded => self.world.excuses_overload(failure),
            Outcome::Failed(_) => self.world.licence.get().excuses_reads(),
            other => return unexpected(other),
        };
        if !fits {
            let detail = format!("the template of {schema} reads as {}; possible are {possible:?}", Reply(&outcome));
            return broken("templates bind", detail);
        }
        match self.call(Command::SchemaList).await {
            Outcome::Templates(ids) if ids.len() <= 1 => Ok(()),
            Outcome::Failed(failure) => self.failed_read(&failure),
            other => unexpected(&other),
        }
    }

    pub(super) async fn rotate_key(&mut self) -> Done {
        let generation = self.server.keyring_generation();
        let outcome = self.call(Command::RotateKey).await;
        self.tell(|| format!("rotate key -> {}", Reply(&outcome)));
        let licence = self.world.licence.get();
        match outcome {
            Outcome::KeyRotated { key_id } => {
                self.world.hit("rotations");
                if self.server.keyring_generation() <= generation {
                    return broken("keys rotate", "an acknowledged rotation changed nothing");
                }
                let on_it = |shard| self.server.storage(shard).status().key_id == key_id;
                // A later rotation may have overtaken this one.
                let alone = self.server.keyring_generation() == generation + 1;
                match !alone || (0..self.server.shards()).all(on_it) {
                    true => Ok(()),
                    false => broken("keys rotate", "a shard does not write with the new key"),
                }
            }
            Outcome::Failed(failure) => match failure.code {
                ErrorCode::Overloaded => Ok(()),
                ErrorCode::Unavailable if licence.excuses_writes() || licence.excuses_reads() => Ok(()),
                _ => broken(
                    "nothing fails without a reason",
                    format!("a rotation failed: {:?} {}", failure.code, failure.message),
                ),
            },
            other => unexpected(&other),
        }
    }

    pub(super) async fn stats(&mut self) -> Done {
        for command in [Command::Ping, Command::Stats] {
            match self.call(command).await {
                Outcome::Pong | Outcome::Stats(_) => {}
                Outcome::Failed(failure) => self.failed_read(&failure)?,
                other => return unexpected(&other),
            }
        }
        Ok(())
    }
}
