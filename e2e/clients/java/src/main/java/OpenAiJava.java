import com.openai.client.OpenAIClient;
import com.openai.client.okhttp.OpenAIOkHttpClient;
import com.openai.core.http.StreamResponse;
import com.openai.models.chat.completions.ChatCompletionChunk;
import com.openai.models.chat.completions.ChatCompletionCreateParams;

/** OpenAI's client for Java. */
class OpenAiJava implements Client {
    public String name() {
        return "openai-java";
    }

    public Class<?> library() {
        return OpenAIClient.class;
    }

    private OpenAIClient connect(String BASE_URL, String TOKEN, boolean once) {
        // docs: begin
        OpenAIClient client = OpenAIOkHttpClient.builder().baseUrl(BASE_URL).apiKey(TOKEN).build();
        // docs: end
        return once ? OpenAIOkHttpClient.builder().baseUrl(BASE_URL).apiKey(TOKEN).maxRetries(0).build() : client;
    }

    private ChatCompletionCreateParams ask(String model) {
        return ChatCompletionCreateParams.builder().model(model).addUserMessage(QUESTION).build();
    }

    public String chat(String baseUrl, String token, String model, boolean once) {
        return connect(baseUrl, token, once).chat().completions().create(ask(model)).choices().get(0).message().content().orElse("");
    }

    public String stream(String baseUrl, String token, String model) {
        StringBuilder text = new StringBuilder();
        try (StreamResponse<ChatCompletionChunk> chunks = connect(baseUrl, token, false).chat().completions().createStreaming(ask(model))) {
            chunks.stream().flatMap(c -> c.choices().stream()).forEach(c -> text.append(c.delta().content().orElse("")));
        }
        return text.toString();
    }
}
