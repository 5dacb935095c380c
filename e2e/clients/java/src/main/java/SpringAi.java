import java.util.List;
import org.springframework.ai.openai.OpenAiChatModel;
import org.springframework.ai.openai.OpenAiChatOptions;

/** Spring AI's model for OpenAI's API. */
class SpringAi implements Client {
    public String name() {
        return "Spring AI";
    }

    public Class<?> library() {
        return OpenAiChatModel.class;
    }

    private OpenAiChatModel connect(String BASE_URL, String TOKEN, String MODEL, boolean once) {
        // docs: begin
        OpenAiChatOptions options = OpenAiChatOptions.builder().baseUrl(BASE_URL).apiKey(TOKEN).model(MODEL).build();
        OpenAiChatModel model = OpenAiChatModel.builder().options(options).build();
        // docs: end
        if (once) {
            options = OpenAiChatOptions.builder().baseUrl(BASE_URL).apiKey(TOKEN).model(MODEL).maxRetries(0).build();
            model = OpenAiChatModel.builder().options(options).build();
        }
        return model;
    }

    public String chat(String baseUrl, String token, String model, boolean once) {
        return connect(baseUrl, token, model, once).call(QUESTION);
    }

    public String stream(String baseUrl, String token, String model) {
        List<String> pieces = connect(baseUrl, token, model, false).stream(QUESTION).collectList().block();
        return String.join("", pieces);
    }
}
