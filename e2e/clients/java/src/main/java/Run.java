import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Puts every client of this folder through the cases of the clients' test, and prints a line of
 * JSON for each result. Its argument is a JSON list of cases.
 */
class Run {
    private static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] args) throws Exception {
        JsonNode cases = JSON.readTree(args[0]);
        List<Client> clients = List.of(new OpenAiJava(), new LangChain4j(), new SpringAi());
        report(Map.of("clients", clients.size()));
        ExecutorService threads = Executors.newCachedThreadPool();
        for (Client client : clients) {
            cases.forEach(test -> threads.submit(() -> run(client, test)));
        }
        threads.shutdown();
        while (!threads.awaitTermination(1, TimeUnit.MINUTES)) {}
        System.exit(0); // the clients' own threads need not end
    }

    private static void run(Client client, JsonNode test) {
        Map<String, Object> result = new LinkedHashMap<>();
        result.put("client", client.name());
        result.put("version", versionOf(client.library()));
        result.put("case", test.get("name").asText());
        try {
            result.put("text", call(client, test));
        } catch (Throwable error) { // whatever a client raises is its result
            result.put("error", error.getClass().getSimpleName());
            result.put("status", statusOf(error));
            result.put("says", causes(error).contains(test.get("says").asText()));
        }
        report(result);
    }

    /** Calls a client as a case says, several times: the first call over a limit may be one that is not refused. */
    private static String call(Client client, JsonNode test) throws Exception {
        String base = test.get("base_url").asText(), token = test.get("token").asText(), model = test.get("model").asText();
        String text = "";
        for (int i = 0; i < test.get("tries").asInt(); i++) {
            text = test.get("call").asText().equals("stream")
                ? client.stream(base, token, model)
                : client.chat(base, token, model, test.get("once").asBoolean());
        }
        return text == null ? "" : text;
    }

    private static String versionOf(Class<?> library) {
        Matcher version = Pattern.compile("-(\\d[\\d.]*)\\.jar$").matcher(library.getProtectionDomain().getCodeSource().getLocation().getPath());
        return version.find() ? version.group(1) : "?";
    }

    /** Returns what statusCode() of the error or of a cause returns. */
    private static int statusOf(Throwable error) {
        for (Throwable e = error; e != null; e = e.getCause()) {
            try {
                return (int) e.getClass().getMethod("statusCode").invoke(e);
            } catch (ReflectiveOperationException | ClassCastException none) {
                continue;
            }
        }
        return 0;
    }

    private static String causes(Throwable error) {
        StringBuilder text = new StringBuilder();
        for (Throwable e = error; e != null; e = e.getCause()) {
            text.append(e.getMessage()).append('\n');
        }
        return text.toString();
    }

    private static synchronized void report(Map<String, ?> line) {
        try {
            System.out.println(JSON.writeValueAsString(line));
        } catch (Exception e) {
            throw new IllegalStateException(e);
        }
    }
}
