import dev.langchain4j.model.chat.response.ChatResponse;
import dev.langchain4j.model.chat.response.StreamingChatResponseHandler;
import dev.langchain4j.model.openai.OpenAiChatModel;
import dev.langchain4j.model.openai.OpenAiStreamingChatModel;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;

/** LangChain4j's models for OpenAI's API. */
class LangChain4j implements Client {
    public String name() {
        return "langchain4j-open-ai";
    }

    public Class<?> library() {
        return OpenAiChatModel.class;
    }

    public String chat(String BASE_URL, String TOKEN, String MODEL, boolean once) {
        // docs: begin
        OpenAiChatModel model = OpenAiChatModel.builder().baseUrl(BASE_URL).apiKey(TOKEN).modelName(MODEL).build();
        // docs: end
        if (once) {
            model = OpenAiChatModel.builder().baseUrl(BASE_URL).apiKey(TOKEN).modelName(MODEL).maxRetries(0).build();
        }
        return model.chat(QUESTION);
    }

    public String stream(String baseUrl, String token, String model) throws Exception {
        StringBuilder text = new StringBuilder();
        CompletableFuture<String> whole = new CompletableFuture<>();
        OpenAiStreamingChatModel.builder().baseUrl(baseUrl).apiKey(token).modelName(model).build()
            .chat(QUESTION, new StreamingChatResponseHandler() {
                public void onPartialResponse(String piece) {
                    text.append(piece);
                }

                public void onCompleteResponse(ChatResponse response) {
                    whole.complete(text.toString());
                }

                public void onError(Throwable error) {
                    whole.completeExceptionally(error);
                }
            });
        try {
            return whole.get();
        } catch (ExecutionException e) {
            throw e.getCause() instanceof Exception cause ? cause : e;
        }
    }
}
