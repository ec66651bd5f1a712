// A shop's checkout, written against the client that is generated from /openapi.json. Arguments: address, token.
// Prints one line a fact; tests/e2e/test_http_client.py compares them.

import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.time.temporal.ChronoUnit;
import java.util.List;
import org.openapitools.client.ApiClient;
import org.openapitools.client.ApiException;
import org.openapitools.client.api.DecisionsApi;
import org.openapitools.client.api.FeaturesApi;
import org.openapitools.client.api.TopicsApi;
import org.openapitools.client.model.ActivityQuery;
import org.openapitools.client.model.CheckoutAnswer;
import org.openapitools.client.model.CheckoutRequest;
import org.openapitools.client.model.VisitsEvent;

public class Checkout {
    public static void main(String[] arguments) throws Exception {
        ApiClient client = new ApiClient();
        client.updateBaseUri(arguments[0]);
        client.setRequestInterceptor(request -> request.header("Authorization", "Bearer " + arguments[1]));
        DecisionsApi decisions = new DecisionsApi(client);
        OffsetDateTime now = OffsetDateTime.now(ZoneOffset.UTC).truncatedTo(ChronoUnit.MICROS);
        CheckoutRequest request =
                new CheckoutRequest().order("java-1").customer(7L).amount("12.50").weight(1.5).at(now);

        CheckoutAnswer first = decisions.decideCheckout(request, true, null, 60_000, "java-1", "de-AT, en;q=0.5", null);
        System.out.println("outcome " + first.getOutcome() + " repeated " + first.getRepeated());
        System.out.println("texts " + first.getLanguage() + " " + first.getReasonTexts().get(0).getText());
        System.out.println("features " + first.getFeatures().get("activity"));
        CheckoutAnswer again = decisions.decideCheckout(request, false, "en", 60_000, null, "de", null);
        System.out.println("same " + again.getDecisionId().equals(first.getDecisionId()) + " repeated " + again.getRepeated());
        System.out.println("texts " + again.getLanguage() + " " + again.getReasonTexts().get(0).getText());
        System.out.println("recorded " + decisions.getDecision(first.getDecisionId(), false, null, null).getRequestId());
        try {
            decisions.decideCheckout(request.amount("99.00"), false, null, 60_000, null, null, null);
        } catch (ApiException refused) {
            System.out.println("conflict " + refused.getCode() + " " + refused.getResponseBody().contains("HR-0710"));
        }

        VisitsEvent visit = new VisitsEvent().customer(7L).at(now);
        System.out.println("taken " + new TopicsApi(client).appendVisitsEvents(List.of(visit, visit)).getVerdicts());
        FeaturesApi features = new FeaturesApi(client);
        System.out.println("count " + features.readActivity(7L, null).getRows().get(0).getValues().getCount1d());
        System.out.println(
                "rows " + features.readActivityBatch(new ActivityQuery().keys(List.of(7L, 8L))).getRows().size());
    }
}
