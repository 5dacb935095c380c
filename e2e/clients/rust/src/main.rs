//! Puts async-openai through the cases of the clients' test, and prints a line of
//! JSON for each result: clients CASES, where CASES is a JSON list.

use async_openai::{
    Client,
    config::OpenAIConfig,
    error::OpenAIError,
    types::chat::{ChatCompletionRequestUserMessage, CreateChatCompletionRequest, CreateChatCompletionRequestArgs},
};
use futures::{StreamExt, future::join_all};
use serde_json::{Value, json};

const QUESTION: &str = "Name three colours.";
const VERSION: &str = "0.43.0"; // as Cargo.toml pins it

#[allow(non_snake_case)]
fn connect(BASE_URL: &str, TOKEN: &str) -> Client<OpenAIConfig> {
    // docs: begin
    let config = OpenAIConfig::new().with_api_base(BASE_URL).with_api_key(TOKEN);
    let client = Client::with_config(config);
    // docs: end
    client
}

fn ask(model: &str) -> Result<CreateChatCompletionRequest, OpenAIError> {
    let question = ChatCompletionRequestUserMessage::from(QUESTION);
    CreateChatCompletionRequestArgs::default().model(model).messages(vec![question.into()]).build()
}

async fn chat(base: &str, token: &str, model: &str) -> Result<String, OpenAIError> {
    let answer = connect(base, token).chat().create(ask(model)?).await?;
    Ok(answer.choices[0].message.content.clone().unwrap_or_default())
}

async fn stream(base: &str, token: &str, model: &str) -> Result<String, OpenAIError> {
    let mut chunks = connect(base, token).chat().create_stream(ask(model)?).await?;
    let mut text = String::new();
    while let Some(chunk) = chunks.next().await {
        for choice in chunk?.choices {
            text += &choice.delta.content.unwrap_or_default();
        }
    }
    Ok(text)
}

/// Calls the client as a case says, several times: the first call over a limit may
/// be one that is not refused. The client has no option for its own tries.
async fn call(case: &Value) -> Result<String, OpenAIError> {
    let field = |name: &str| case[name].as_str().unwrap_or_default();
    let (base, token, model) = (field("base_url"), field("token"), field("model"));
    let mut text = String::new();
    for _ in 0..case["tries"].as_u64().unwrap_or(1) {
        text = match field("call") {
            "stream" => stream(base, token, model).await?,
            _ => chat(base, token, model).await?,
        };
    }
    Ok(text)
}

/// Returns the name of an error's variant.
fn class(error: &OpenAIError) -> &'static str {
    match error {
        OpenAIError::Reqwest(_) => "Reqwest",
        OpenAIError::ApiError(_) => "ApiError",
        OpenAIError::JSONDeserialize(..) => "JSONDeserialize",
        OpenAIError::StreamError(_) => "StreamError",
        _ => "OpenAIError",
    }
}

async fn run(case: &Value) {
    let mut result = json!({"client": "async-openai", "version": VERSION, "case": case["name"]});
    match call(case).await {
        Ok(text) => result["text"] = json!(text),
        Err(error) => {
            result["error"] = json!(class(&error));
            result["says"] = json!(error.to_string().contains(case["says"].as_str().unwrap_or("?")));
            if let OpenAIError::ApiError(refusal) = &error {
                result["status"] = json!(refusal.status_code.as_u16());
            }
        }
    }
    println!("{result}");
}

#[tokio::main]
async fn main() {
    let cases: Vec<Value> = serde_json::from_str(&std::env::args().nth(1).expect("CASES")).expect("a JSON list");
    println!("{}", json!({"clients": 1}));
    join_all(cases.iter().map(run)).await;
}
